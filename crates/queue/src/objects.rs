//! Objects of one kind by id, in shared maps: cloning copies a few pointers, changing one copies one small map.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use model::QueueId;

/// Objects are spread over this many maps.
const BUCKETS: u64 = 64;

type Bucket<T> = Arc<BTreeMap<QueueId, Arc<T>>>;

#[derive(Debug)]
pub(crate) struct Objects<T> {
    buckets: Vec<Bucket<T>>,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Objects { buckets: self.buckets.clone() }
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects { buckets: (0..BUCKETS).map(|_| Bucket::default()).collect() }
    }
}

fn bucket_of(id: QueueId) -> usize {
    (id.0 % BUCKETS) as usize
}

impl<T> Objects<T> {
    pub(crate) fn len(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.len() as u64).sum()
    }

    #[inline]
    pub(crate) fn contains(&self, id: QueueId) -> bool {
        self.buckets[bucket_of(id)].contains_key(&id)
    }

    #[inline]
    pub(crate) fn find(&self, id: QueueId) -> Option<&T> {
        self.buckets[bucket_of(id)].get(&id).map(Arc::as_ref)
    }

    /// All, in an order that is the same everywhere.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueId, &T)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter().map(|(id, object)| (*id, object.as_ref())))
    }

    /// The one behind `before` in that order; `None`: the first.
    pub(crate) fn next(&self, before: Option<QueueId>) -> Option<(QueueId, &T)> {
        let (from, bound) = before.map_or((0, Unbounded), |id| (bucket_of(id), Excluded(id)));
        let rest = self.buckets[from].range((bound, Unbounded)).next();
        let found = rest.or_else(|| self.buckets[from + 1..].iter().find_map(|b| b.first_key_value()));
        found.map(|(id, object)| (*id, object.as_ref()))
    }
}

impl<T: Clone> Objects<T> {
    /// The object, to be changed: its own copy where a frozen view shares it.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: QueueId) -> Option<&mut T> {
        let bucket = &mut self.buckets[bucket_of(id)];
        if !bucket.contains_key(&id) {
            return None;
        }
        Arc::make_mut(bucket).get_mut(&id).map(Arc::make_mut)
    }

    /// Adds an object; false where there is one already, which stays.
    pub(crate) fn insert(&mut self, id: QueueId, object: T) -> bool {
        if self.contains(id) {
            return false;
        }
        Arc::make_mut(&mut self.buckets[bucket_of(id)]).insert(id, Arc::new(object)).is_none()
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, id: QueueId) -> Option<T> {
        if !self.contains(id) {
            return None;
        }
        Arc::make_mut(&mut self.buckets[bucket_of(id)]).remove(&id).map(Arc::unwrap_or_clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_comes_once_in_the_order_of_next_and_clones_stay() {
        let mut objects = Objects::default();
        let ids = [3, 67, 131, 4, 0, 64 * 5 + 63].map(QueueId);
        ids.iter().for_each(|id| assert!(objects.insert(*id, id.0)));
        assert!(!objects.insert(QueueId(3), 9), "what is there stays");
        let clone = objects.clone();
        let listed: Vec<_> = objects.iter().map(|(id, object)| (id, *object)).collect();
        let mut walked = Vec::new();
        let mut before = None;
        while let Some((id, object)) = objects.next(before) {
            walked.push((id, *object));
            before = Some(id);
        }
        assert_eq!(walked, listed);
        assert_eq!((listed.len(), objects.len()), (6, 6));
        *objects.find_mut(QueueId(67)).unwrap() = 1;
        assert_eq!(objects.remove(QueueId(3)), Some(3));
        assert_eq!(objects.remove(QueueId(3)), None);
        assert_eq!((clone.find(QueueId(67)), clone.find(QueueId(3))), (Some(&67), Some(&3)));
        assert_eq!((objects.find(QueueId(67)), objects.find(QueueId(3))), (Some(&1), None));
    }
}
