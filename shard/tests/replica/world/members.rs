//! Changes of members, and disks that are lost.

use std::sync::Arc;

use terrane_shard::log::{Config, Incarnation, Kind, Term};
use terrane_shard::policy::{Member, MemberId, Quorums, Role};
use terrane_shard::replica::Saved;
use terrane_wal::lsn::Lsn;

use super::World;

impl World {
    /// The newest configuration that is committed anywhere, and where its entry ends.
    pub(super) fn config(&self) -> (Arc<Config>, Lsn) {
        let mut committed = self.committed.iter().rev();
        let config = committed.find_map(|entry| match &entry.kind {
            Kind::Config(config) => Some((config.clone(), entry.head.end)),
            _ => None,
        });
        config.unwrap_or_else(|| (self.first.clone(), Lsn::ZERO))
    }

    pub(super) fn saved(&self, id: MemberId) -> Saved {
        let host = self.hosts.iter().find(|host| host.id == id);
        host.unwrap().saved
    }

    /// A change of members by the leader, if this host is one: one joins as a reader, votes, votes
    /// no more, or leaves.
    pub(super) fn change(&mut self, at: usize) {
        let Some(replica) = &self.hosts[at].replica else {
            return;
        };
        let before = replica.config().clone();
        let other = self.chance.below(self.hosts.len());
        let (id, zone) = (self.hosts[other].id, self.hosts[other].zone.clone());
        let mut members = before.quorums().members().to_vec();
        match members.iter().position(|member| member.id == id) {
            None => members.push(Member::reader(id.0, zone)),
            Some(place) => match (members[place].role, self.chance.below(3)) {
                (Role::Reader, 0) => drop(members.remove(place)),
                (Role::Reader, _) => members[place].role = Role::Voter,
                (Role::Voter, _) => members[place].role = Role::Reader,
            },
        }
        let incarnation = |member: &Member| match before.quorums().place(member.id) {
            Some(place) => before.incarnations()[place],
            None => self.saved(member.id).incarnation,
        };
        let incarnations = members.iter().map(incarnation).collect();
        let Ok(quorums) = Quorums::new(&*self.policy, &members) else {
            return;
        };
        // A shard that no loss of a disk can stop, and none was lost.
        let mut now = self.hosts.iter().filter_map(|host| {
            let place = before.quorums().place(host.id)?;
            Some(before.incarnations()[place] == host.saved.incarnation)
        });
        if quorums.report().failover_with_down < Some(1) || !now.all(|trusted| trusted) {
            return;
        }
        let config = Config::new(quorums, incarnations).unwrap();
        let replica = self.hosts[at].replica.as_mut().unwrap();
        if let Ok(effect) = replica.change(config) {
            self.done.changed += 1;
            self.effect(at, effect);
        }
    }

    /// Loses a disk: only while every disk is trusted and says that it is, for two losses at once
    /// are more than most policies here survive.
    pub(crate) fn wipe(&mut self, at: usize) {
        let (config, end) = self.config();
        let members = config.quorums().members().iter();
        let mut members = members.map(|member| (member.id, self.saved(member.id)));
        let trusted = |(id, saved): (MemberId, Saved)| {
            config.trusted(id, saved.incarnation).is_some() && saved.commit >= end
        };
        let spare = config.quorums().report().failover_with_down >= Some(1);
        let changing = self.hosts.iter().any(|host| {
            let configs = host.log.configs(&self.first, host.saved.commit);
            configs.newest_end() > end
        });
        if !members.all(trusted) || !spare || changing {
            return;
        }
        self.crash(at);
        let incarnation = Incarnation(self.chance.next());
        let host = &mut self.hosts[at];
        match host.old.take() {
            // A copy of a run before is put back. One of this run would not be noticed.
            Some((disk, saved))
                if saved.incarnation == host.saved.incarnation && saved.boot < host.saved.boot =>
            {
                (host.disk, host.saved) = (disk, saved);
                self.done.put_back += 1;
            }
            _ => {
                host.disk.clear();
                host.saved = Saved {
                    promised: Term(0),
                    incarnation,
                    boot: 0,
                    commit: Lsn::ZERO,
                };
            }
        }
        self.done.wiped += 1;
        self.start(at);
    }
}
