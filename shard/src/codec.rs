//! The bytes of what control entries say: members and policy in a [`Config`], how a term was
//! established in a [`Barrier`]. And those of what the topology keeps, a [`ShardRecord`].
//!
//! A policy is stored as what it said of these members, not as what it is: a rule that a user wrote
//! comes back like a built-in one, and means the same in a later version.
//!
//! Invariants:
//! * B1. A value has one encoding, and a decoder takes nothing else: whatever it takes encodes to
//!   the bytes that it took.
//! * B2. No length that was read allocates: what it counts must be there first.
//!
//! Byte tables: engine/src/guide/format.md, "Control records of a shard", "Records of a topology".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use terrane_wal::WalError;
use terrane_wal::lsn::Lsn;
use terrane_wal::varint::{put_varint, take_varint};

use crate::log::{Config, Incarnation, Point, Term};
use crate::policy::enumerated::Rule;
use crate::policy::{MEMBERS_MAX, Member, MemberId, MemberSet, Quorums, Role};
use crate::topology::{Run, ShardRecord};

/// The format of all of them, their first byte.
const FORMAT: u8 = 1;

/// Flag of a member: it is a reader.
const READER: u8 = 1;

/// Flag of a member: the policy lets it lead.
const MAY_LEAD: u8 = 2;

// A set of places is 16 bits.
const _: () = assert!(MEMBERS_MAX == 16);

/// Most acknowledgements that one who may lead can need: far more than a shard has members.
const ACKS_MAX: usize = isize::MAX as usize;

/// What a barrier carries beside its term: by what right the term began.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Barrier {
    /// The last entry before it: the greatest log among those reached (I7).
    pub chosen: Point,
    /// Who had promised the term, each with the data that it has (I6).
    pub reached: BTreeMap<MemberId, Incarnation>,
    /// Name and parameters of the policy that they satisfied, for people.
    pub policy: String,
}

/// Bytes that are no encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    /// Of which value: "config", "barrier" or "shard record".
    pub what: &'static str,
    /// Where in its bytes.
    pub offset: usize,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            offset,
            expected,
            found,
        } = self;
        write!(
            f,
            "{what}, byte {offset}: expected {expected}, found {found}"
        )
    }
}

impl std::error::Error for CodecError {}

impl Config {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let quorums = self.quorums();
        let mut out = vec![FORMAT];
        put_text(&mut out, quorums.policy());
        // At most 16.
        out.push(quorums.members().len() as u8);
        let members = quorums.members().iter().zip(quorums.rules());
        for ((member, rule), incarnation) in members.zip(self.incarnations()) {
            out.extend(member.id.0.to_le_bytes());
            out.extend(incarnation.0.to_le_bytes());
            let reader = if member.role == Role::Reader {
                READER
            } else {
                0
            };
            out.push(reader | if rule.may_lead { MAY_LEAD } else { 0 });
            put_varint(&mut out, rule.acks_needed as u64);
            out.extend(bits(rule.ackers).to_le_bytes());
            put_text(&mut out, &member.zone);
        }
        out
    }

    /// What [`Config::encode`] made these bytes of.
    ///
    /// # Errors
    /// [`CodecError`] if it made them of nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Input::new("config", bytes)?;
        let policy = input.text()?;
        let count = usize::from(input.byte()?);
        if !(1..=MEMBERS_MAX).contains(&count) {
            let expected = format!("1 to {MEMBERS_MAX} members");
            return Err(input.before(1, expected, count));
        }
        let (mut members, mut rules) = (Vec::new(), Vec::new());
        let mut incarnations = Vec::new();
        for place in 0..count {
            let id = input.member()?;
            incarnations.push(Incarnation(input.number()?));
            let (role, rule) = input.rule(place, count)?;
            let zone = input.text()?.to_owned();
            members.push(Member { id, zone, role });
            rules.push(rule);
        }
        input.end()?;
        let misfit = |error: &dyn fmt::Display| CodecError {
            what: "config",
            offset: 0,
            expected: "members and a policy that fit".to_owned(),
            found: error.to_string(),
        };
        let quorums =
            Quorums::enumerated(policy, &members, &rules).map_err(|error| misfit(&error))?;
        Self::new(quorums, incarnations).map_err(|error| misfit(&error))
    }
}

impl Barrier {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend(self.chosen.term.0.to_le_bytes());
        out.extend(self.chosen.lsn.0.to_le_bytes());
        put_text(&mut out, &self.policy);
        put_varint(&mut out, self.reached.len() as u64);
        for (id, incarnation) in &self.reached {
            out.extend(id.0.to_le_bytes());
            out.extend(incarnation.0.to_le_bytes());
        }
        out
    }

    /// What [`Barrier::encode`] made these bytes of.
    ///
    /// # Errors
    /// [`CodecError`] if it made them of nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Input::new("barrier", bytes)?;
        let chosen = Point {
            term: Term(input.number()?),
            lsn: Lsn(input.number()?),
        };
        let policy = input.text()?.to_owned();
        let count = input.varint()?;
        let mut reached = BTreeMap::new();
        let mut above: Option<MemberId> = None;
        // Ends with the bytes at the latest.
        for _ in 0..count {
            let id = input.member_above(&mut above)?;
            reached.insert(id, Incarnation(input.number()?));
        }
        input.end()?;
        Ok(Self {
            chosen,
            reached,
            policy,
        })
    }
}

impl ShardRecord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend(self.term.0.to_le_bytes());
        out.push(u8::from(self.leader.is_some()));
        if let Some((term, leader)) = self.leader {
            out.extend(term.0.to_le_bytes());
            out.extend(leader.0.to_le_bytes());
        }
        put_varint(&mut out, self.runs.len() as u64);
        for (id, run) in &self.runs {
            out.extend(id.0.to_le_bytes());
            out.extend(run.incarnation.0.to_le_bytes());
            out.extend(run.boot.to_le_bytes());
        }
        put_varint(&mut out, self.retired.len() as u64);
        for (id, incarnation) in &self.retired {
            out.extend(id.0.to_le_bytes());
            out.extend(incarnation.0.to_le_bytes());
        }
        out
    }

    /// What [`ShardRecord::encode`] made these bytes of.
    ///
    /// # Errors
    /// [`CodecError`] if it made them of nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Input::new("shard record", bytes)?;
        let term = Term(input.number()?);
        let leader = match input.byte()? {
            0 => None,
            1 => Some((Term(input.number()?), input.member()?)),
            other => return Err(input.before(1, "0 or 1 leaders", other)),
        };
        let mut runs = BTreeMap::new();
        let mut above: Option<MemberId> = None;
        // These end with the bytes at the latest.
        for _ in 0..input.varint()? {
            let id = input.member_above(&mut above)?;
            let incarnation = Incarnation(input.number()?);
            let boot = input.number()?;
            runs.insert(id, Run { incarnation, boot });
        }
        let mut retired = BTreeSet::new();
        for _ in 0..input.varint()? {
            let data = (input.member()?, Incarnation(input.number()?));
            input.retired(data, &runs, &retired)?;
            retired.insert(data);
        }
        input.end()?;
        Ok(Self {
            term,
            leader,
            runs,
            retired,
        })
    }
}

/// A set of places, lowest bit first.
fn bits(set: MemberSet) -> u16 {
    let places = (0..MEMBERS_MAX).filter(|place| set.contains(*place));
    places.fold(0, |bits, place| bits | 1 << place)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Bytes on their way in.
struct Input<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// Behind the format byte.
    fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut input = Self { what, bytes, at: 0 };
        match input.byte()? {
            FORMAT => Ok(input),
            other => Err(input.before(1, format!("format {FORMAT}"), other)),
        }
    }

    /// An error about what was read last, so many bytes of it.
    fn before(
        &self,
        back: usize,
        expected: impl Into<String>,
        found: impl fmt::Display,
    ) -> CodecError {
        CodecError {
            what: self.what,
            offset: self.at - back,
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            let found = format!("{} to the end", rest.len());
            return Err(self.before(0, format!("{len} bytes"), found));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn varint(&mut self) -> Result<u64, CodecError> {
        let rest = &self.bytes[self.at..];
        let (value, left) = take_varint(rest).map_err(|error| match error {
            WalError::Corrupt {
                offset,
                expected,
                found,
                ..
            } => CodecError {
                what: self.what,
                offset: self.at.saturating_add(offset as usize),
                expected,
                found,
            },
            other => self.before(0, "a varint", other),
        })?;
        self.at = self.bytes.len() - left.len();
        Ok(value)
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        let len = self.varint()?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map_err(|error| {
            let from_here = bytes.len() - error.valid_up_to();
            self.before(
                from_here,
                "UTF-8",
                format!("{:02x?}", bytes[error.valid_up_to()]),
            )
        })
    }

    fn member(&mut self) -> Result<MemberId, CodecError> {
        Ok(MemberId(u32::from_le_bytes(self.array()?)))
    }

    /// A member above the one before: they stand in their order, each once.
    fn member_above(&mut self, above: &mut Option<MemberId>) -> Result<MemberId, CodecError> {
        let id = self.member()?;
        if let Some(last) = above.filter(|last| id <= *last) {
            return Err(self.before(4, format!("a member above {last}"), id));
        }
        *above = Some(id);
        Ok(id)
    }

    /// Whether this data, read last, can stand behind those as data that a member had before.
    fn retired(
        &self,
        (id, incarnation): (MemberId, Incarnation),
        runs: &BTreeMap<MemberId, Run>,
        before: &BTreeSet<(MemberId, Incarnation)>,
    ) -> Result<(), CodecError> {
        let name = |(id, data): (MemberId, Incarnation)| format!("data {:#x} of {id}", data.0);
        let found = name((id, incarnation));
        if let Some(last) = before.last().filter(|last| (id, incarnation) <= **last) {
            return Err(self.before(12, format!("data above {}", name(*last)), found));
        }
        let has = runs.get(&id).map(|run| run.incarnation);
        if has == Some(incarnation) {
            return Err(self.before(12, format!("data that {id} has no more"), found));
        }
        Ok(())
    }

    /// What a member is for, and what the policy says of it.
    fn rule(&mut self, place: usize, count: usize) -> Result<(Role, Rule), CodecError> {
        let flags = self.byte()?;
        if flags & !(READER | MAY_LEAD) != 0 {
            return Err(self.before(1, "flags 0 to 3", flags));
        }
        let may_lead = flags & MAY_LEAD != 0;
        let start = self.at;
        let needed = self.varint()?;
        let most = if may_lead { ACKS_MAX } else { usize::MAX };
        let acks_needed = usize::try_from(needed)
            .ok()
            .filter(|needed| *needed <= most);
        let Some(acks_needed) = acks_needed else {
            let expected = format!("at most {most} acknowledgements");
            return Err(self.before(self.at - start, expected, needed));
        };
        let places = u16::from_le_bytes(self.array()?);
        let ackers: MemberSet = (0..count)
            .filter(|at| *at != place && places >> at & 1 == 1)
            .collect();
        if bits(ackers) != places {
            let expected = format!("places below {count}, without {place}");
            return Err(self.before(2, expected, format!("bits {places:#06x}")));
        }
        let role = match flags & READER {
            0 => Role::Voter,
            _ => Role::Reader,
        };
        let rule = Rule {
            may_lead,
            acks_needed,
            ackers,
        };
        Ok((role, rule))
    }

    /// Nothing may follow.
    fn end(&self) -> Result<(), CodecError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            more => Err(self.before(0, "the end", format!("{more} bytes more"))),
        }
    }
}
