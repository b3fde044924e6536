//! Objects of one kind by id, in shared lists: cloning copies a few pointers, changing one copies one short list.
//!
//! Sorted lists, not trees: one of thousands of queues that take turns is in no cache, and each step to it is waited for.

use std::sync::Arc;

use model::QueueId;

/// Objects are spread over this many lists, so that thawing one after a freeze copies few pointers.
const BUCKETS: u64 = 1024;

/// By id, ascending. Up to as many objects as there are lists mostly stand alone in theirs, one pointer nearer.
#[derive(Debug)]
enum Bucket<T> {
    Empty,
    One((QueueId, Arc<T>)),
    Many(Arc<[(QueueId, Arc<T>)]>),
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        match self {
            Bucket::Empty => Bucket::Empty,
            Bucket::One((id, object)) => Bucket::One((*id, object.clone())),
            Bucket::Many(list) => Bucket::Many(list.clone()),
        }
    }
}

impl<T> From<Vec<(QueueId, Arc<T>)>> for Bucket<T> {
    fn from(mut list: Vec<(QueueId, Arc<T>)>) -> Self {
        match list.len() {
            0 | 1 => list.pop().map_or(Bucket::Empty, Bucket::One),
            _ => Bucket::Many(list.into()),
        }
    }
}

impl<T> Bucket<T> {
    #[inline]
    fn list(&self) -> &[(QueueId, Arc<T>)] {
        match self {
            Bucket::Empty => &[],
            Bucket::One(one) => std::slice::from_ref(one),
            Bucket::Many(list) => list,
        }
    }

    /// The list of this bucket alone.
    #[inline]
    fn own(&mut self) -> &mut [(QueueId, Arc<T>)] {
        match self {
            Bucket::Empty => &mut [],
            Bucket::One(one) => std::slice::from_mut(one),
            Bucket::Many(list) => Arc::make_mut(list),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Objects<T> {
    buckets: Vec<Bucket<T>>,
    len: u64,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Objects { buckets: self.buckets.clone(), len: self.len }
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects { buckets: (0..BUCKETS).map(|_| Bucket::Empty).collect(), len: 0 }
    }
}

fn bucket_of(id: QueueId) -> usize {
    (id.0 % BUCKETS) as usize
}

/// Where in its list the object is, or would be.
#[inline]
fn place_of<T>(list: &[(QueueId, T)], id: QueueId) -> Result<usize, usize> {
    list.binary_search_by_key(&id, |(own, _)| *own)
}

impl<T> Objects<T> {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    pub(crate) fn find(&self, id: QueueId) -> Option<&T> {
        let list = self.buckets[bucket_of(id)].list();
        place_of(list, id).ok().map(|at| list[at].1.as_ref())
    }

    /// Asks for the memory of an object that is needed soon.
    #[inline]
    pub(crate) fn prefetch(&self, id: QueueId) {
        self.find(id).into_iter().for_each(base::prefetch);
    }

    /// All, in an order that is the same everywhere.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueId, &T)> {
        // Often there is none of a kind, and often somebody asks.
        let buckets = if self.len == 0 { &[] } else { &self.buckets[..] };
        buckets.iter().flat_map(|bucket| bucket.list().iter().map(|(id, object)| (*id, object.as_ref())))
    }

    /// The one behind `before` in that order; `None`: the first.
    pub(crate) fn next(&self, before: Option<QueueId>) -> Option<(QueueId, &T)> {
        let behind = |id| place_of(self.buckets[bucket_of(id)].list(), id).map_or_else(|at| at, |at| at + 1);
        let (from, at) = before.map_or((0, 0), |id| (bucket_of(id), behind(id)));
        let rest = self.buckets[from].list().get(at);
        let found = rest.or_else(|| self.buckets[from + 1..].iter().find_map(|bucket| bucket.list().first()));
        found.map(|(id, object)| (*id, object.as_ref()))
    }
}

impl<T: Clone> Objects<T> {
    /// The object, to be changed: its own copy where a frozen view shares it.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: QueueId) -> Option<&mut T> {
        let bucket = &mut self.buckets[bucket_of(id)];
        let at = place_of(bucket.list(), id).ok()?;
        Some(Arc::make_mut(&mut bucket.own()[at].1))
    }

    /// Adds an object; false where there is one already, which stays.
    pub(crate) fn insert(&mut self, id: QueueId, object: T) -> bool {
        let bucket = &mut self.buckets[bucket_of(id)];
        let Err(at) = place_of(bucket.list(), id) else { return false };
        let mut list = bucket.list().to_vec();
        list.insert(at, (id, Arc::new(object)));
        *bucket = list.into();
        self.len += 1;
        true
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, id: QueueId) -> Option<T> {
        let bucket = &mut self.buckets[bucket_of(id)];
        let at = place_of(bucket.list(), id).ok()?;
        let mut list = bucket.list().to_vec();
        let (_, object) = list.remove(at);
        *bucket = list.into();
        self.len -= 1;
        Some(Arc::unwrap_or_clone(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_comes_once_in_the_order_of_next_and_clones_stay() {
        let mut objects = Objects::default();
        let ids = [3, 1027, 2051, 4, 0, 1024 * 5 + 1023].map(QueueId);
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
        *objects.find_mut(QueueId(1027)).unwrap() = 1;
        assert_eq!(objects.remove(QueueId(3)), Some(3));
        assert_eq!(objects.remove(QueueId(3)), None);
        assert_eq!((clone.find(QueueId(1027)), clone.find(QueueId(3))), (Some(&1027), Some(&3)));
        assert_eq!((objects.find(QueueId(1027)), objects.find(QueueId(3))), (Some(&1), None));
    }
}
