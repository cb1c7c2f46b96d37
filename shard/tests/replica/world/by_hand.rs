//! What schedules do step by step.

use terrane_shard::message::Message;
use terrane_shard::policy::MemberId;
use terrane_shard::replica::{Effect, Replica};
use terrane_shard::switchover::SwitchError;
use terrane_shard::topology::ShardRecord;
use terrane_wal::lsn::Lsn;

use super::{Admission, Letter, Said, World};

impl World {
    /// The oldest message between two of these hosts is delivered, and whoever got it syncs; false
    /// if there is none.
    pub(crate) fn deliver_among(&mut self, hosts: &[usize]) -> bool {
        let id = |at: &usize| self.hosts[*at].id;
        let ids: Vec<MemberId> = hosts.iter().map(id).collect();
        let among = |letter: &Letter| ids.contains(&letter.from) && ids.contains(&letter.to);
        let Some(at) = self.network.iter().position(among) else {
            return false;
        };
        let letter = self.network.remove(at).unwrap();
        let to = self.hosts.iter().position(|host| host.id == letter.to);
        self.deliver(letter);
        self.save_promise(to.unwrap());
        self.sync(to.unwrap());
        true
    }

    /// Delivers what one host said to another, and nothing that follows from it.
    pub(crate) fn deliver_from(&mut self, from: usize, to: usize) {
        let (from, to) = (self.hosts[from].id, self.hosts[to].id);
        let between = |letter: &Letter| letter.from == from && letter.to == to;
        while let Some(at) = self.network.iter().position(between) {
            let letter = self.network.remove(at).unwrap();
            self.deliver(letter);
        }
    }

    /// A message comes, whoever sent it when.
    pub(crate) fn deliver_again(&mut self, from: usize, to: usize, message: Message) {
        let (from, to) = (self.hosts[from].id, self.hosts[to].id);
        let said = Said::Message(message);
        self.deliver(Letter { from, to, said });
    }

    /// Takes a request to copy out of the network, if there is one.
    pub(crate) fn take_copy(&mut self) -> Option<Message> {
        let copy = |letter: &Letter| matches!(letter.said, Said::Message(Message::Copy { .. }));
        let at = self.network.iter().position(copy)?;
        match self.network.remove(at)?.said {
            Said::Message(message) => Some(message),
            Said::Word(_) => None,
        }
    }

    /// Delivers among these hosts until something holds, or until there is nothing to deliver.
    pub(crate) fn among(&mut self, hosts: &[usize], until: impl Fn(&World) -> bool) {
        while !until(self) && self.deliver_among(hosts) {}
    }

    pub(crate) fn has_lease(&self, at: usize) -> bool {
        self.replica(at).has_lease(self.time(at))
    }

    /// As [`World::among`], and the hosts apply and drain.
    pub(crate) fn work_among(&mut self, hosts: &[usize], until: impl Fn(&World) -> bool) {
        let mut more = true;
        while more && !until(self) {
            more = self.deliver_among(hosts);
            for at in hosts {
                self.apply(*at);
                // What was admitted is at most two entries, and the word that it is all.
                (0..3).for_each(|_| self.drain(*at));
                self.sync(*at);
            }
        }
    }

    /// Whether the leader of this host takes what its callers write.
    pub(crate) fn admits(&self, at: usize) -> bool {
        self.hosts[at].admission == Admission::Open
    }

    /// Whether a host is asking a leader to hand over, and what its last switchover failed by.
    pub(crate) fn switching(&self, at: usize) -> (bool, Option<SwitchError>) {
        (self.hosts[at].switchover.is_some(), self.hosts[at].refused)
    }

    /// Whether a message that says so is on its way.
    pub(crate) fn is_sent(&self, says: impl Fn(&Message) -> bool) -> bool {
        let mut said = self.network.iter().map(|letter| &letter.said);
        said.any(|said| matches!(said, Said::Message(message) if says(message)))
    }

    pub(crate) fn topology(&self) -> &ShardRecord {
        &self.topology
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
    }

    /// All messages on their way are lost.
    pub(crate) fn lose(&mut self) {
        self.network.clear();
    }

    pub(crate) fn replica_mut(&mut self, at: usize) -> &mut Replica {
        self.hosts[at].replica.as_mut().unwrap()
    }

    pub(crate) fn replica(&self, at: usize) -> &Replica {
        self.hosts[at].replica.as_ref().unwrap()
    }

    pub(crate) fn leads(&self, at: usize) -> bool {
        self.replica(at).leads().is_some()
    }

    pub(crate) fn serves(&self, at: usize) -> bool {
        self.replica(at).leads().is_some_and(|lead| lead.1)
    }

    /// What a host is to do, done.
    pub(crate) fn does(&mut self, at: usize, effect: Effect) {
        self.effect(at, effect);
    }

    /// The end of a host's log.
    pub(crate) fn end(&self, at: usize) -> Lsn {
        self.hosts[at].log.epochs.last().lsn
    }

    pub(crate) fn commit(&self, at: usize) -> Lsn {
        self.replica(at).commit()
    }

    /// A copy of a host's disk is kept.
    pub(crate) fn copy_disk(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.old = Some((host.disk.clone(), host.saved));
    }

    /// The copy is put in the place of the disk of a host that is down.
    pub(crate) fn put_back(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.disk, host.saved) = host.old.take().unwrap();
    }

    /// The disk of a host that is down is set back to what it was at this entry's end.
    pub(crate) fn set_back(&mut self, at: usize, to: Lsn) {
        self.hosts[at].disk.retain(|entry| entry.head.end <= to);
    }

    pub(crate) fn same_log(&self, a: usize, b: usize) -> bool {
        self.hosts[a].log.entries == self.hosts[b].log.entries
    }
}
