//! One part for each shard that a transaction or a snapshot has touched, in the order of the first
//! touch. Parts are added while others are lent out, and stay where they are.
//!
//! A part is found by going along the list: there are few, or much else is to be done.

use std::sync::OnceLock;

use crate::error::Result;

type Place<T> = OnceLock<Box<Link<T>>>;

#[derive(Debug)]
struct Link<T> {
    shard: u32,
    part: T,
    next: Place<T>,
}

/// The parts.
#[derive(Debug)]
pub(crate) struct Legs<T> {
    first: Place<T>,
}

impl<T> Legs<T> {
    /// None.
    pub(crate) fn new() -> Legs<T> {
        Legs {
            first: Place::new(),
        }
    }

    /// The part in a shard, made by `open` if there is none. O(parts).
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn open(&self, shard: u32, open: impl Fn() -> Result<T>) -> Result<&T> {
        let mut place = &self.first;
        loop {
            match place.get() {
                Some(link) if link.shard == shard => return Ok(&link.part),
                Some(link) => place = &link.next,
                None => {
                    let part = open()?;
                    let next = Place::new();
                    // Of two at once one is kept, which the next round looks at.
                    place.get_or_init(|| Box::new(Link { shard, part, next }));
                }
            }
        }
    }

    /// The part in a shard, if there is one.
    pub(crate) fn get_mut(&mut self, shard: u32) -> Option<&mut T> {
        let mut link = self.first.get_mut();
        while let Some(here) = link {
            if here.shard == shard {
                return Some(&mut here.part);
            }
            link = here.next.get_mut();
        }
        None
    }

    /// All parts with their shards.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let links = std::iter::successors(self.first.get(), |link| link.next.get());
        links.map(|link| (link.shard, &link.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn a_part_is_made_once_and_found_again() {
        let mut legs = Legs::new();
        for shard in [7, 0, 3, 7, 3] {
            let made = legs.open(shard, || Ok(format!("of {shard}"))).unwrap();
            assert_eq!(*made, format!("of {shard}"));
        }
        let refused = legs.open(9, || Err(Error::new(ErrorKind::Unavailable, "no")));
        assert!(refused.is_err());
        assert!(legs.get_mut(9).is_none());
        legs.get_mut(3).unwrap().push('!');
        let all: Vec<_> = legs.iter().map(|(at, part)| (at, part.as_str())).collect();
        assert_eq!(all, [(7, "of 7"), (0, "of 0"), (3, "of 3!")]);
    }
}
