//! Declaring, finding and deleting queues.
//!
//! In: declarations, ends of connections. Out: queue records, refusals. A queue that is exclusive, deleted automatically
//! or not durable lives in the memory of the shard of the connection that declared it; any other in the logged group
//! chosen when it was proposed. Never: whether a queue is empty or has consumers, which its host checks beforehand.

use model::{Entity, GroupId, QueueDeclaration, QueueId, Refusal, Value};

use crate::arguments::{check, check_same_queue, kind_of};
use crate::bindings::not_found;
use crate::topology::{Answer, check_name};
use crate::{Destination, Owner, QueueKind, QueueRecord, Topology};

impl Topology {
    pub(crate) fn declare_queue(
        &mut self,
        vhost: &str,
        declaration: QueueDeclaration,
        owner: Option<Owner>,
        group: GroupId,
        chosen: String,
    ) -> Result<Answer, Refusal> {
        if declaration.passive {
            let queue = self.passive_queue(vhost, &declaration.name, owner)?.clone();
            return Ok(Answer::Declared { queue, created: false });
        }
        let name = if declaration.name.is_empty() {
            if chosen.is_empty() || chosen.len() > 255 || self.queue(vhost, &chosen).is_some() {
                return Err(Refusal::Unavailable("no free name was drawn for the queue".into(), true));
            }
            chosen
        } else {
            check_name(Entity::Queue, &declaration.name)?;
            declaration.name.clone()
        };
        if let Some(queue) = self.queue(vhost, &name) {
            check_same(queue, &declaration, owner)?;
            return Ok(Answer::Declared { queue: queue.clone(), created: false });
        }
        let queue = self.create_queue(vhost, name, declaration, owner, group)?;
        Ok(Answer::Declared { queue, created: true })
    }

    fn create_queue(
        &mut self,
        vhost: &str,
        name: String,
        declaration: QueueDeclaration,
        owner: Option<Owner>,
        group: GroupId,
    ) -> Result<QueueRecord, Refusal> {
        check(&declaration)?;
        let kind = kind_of(&declaration.arguments);
        if kind == QueueKind::Stream
            && self.vhosts.get(vhost).is_some_and(|host| host.topics.contains_key(&name))
        {
            let text = format!("stream '{name}': there is a topic of that name, with several partitions");
            return Err(Refusal::Invalid(text));
        }
        if self.queues.len() >= self.bounds.queues {
            let text = format!("there are already {} queues, as many as there may be", self.bounds.queues);
            return Err(Refusal::LimitReached(text));
        }
        let exclusive = declaration.exclusive;
        let durable = declaration.durable && !exclusive;
        let (group, home) = if durable && !declaration.auto_delete {
            self.check_group(group)?;
            (group, None)
        } else {
            let owner = owner.ok_or_else(|| {
                let text = format!("queue '{name}' lives in memory, so only a connection can declare it");
                Refusal::Invalid(text)
            })?;
            (GroupId::memory(owner.origin.shard()), Some(owner.origin))
        };
        let QueueDeclaration { auto_delete, arguments, .. } = declaration;
        let exclusive = owner.filter(|_| exclusive);
        let id = self.draw_queue_id();
        let vhost = vhost.to_owned();
        let queue =
            QueueRecord { id, kind, vhost, name, group, durable, exclusive, auto_delete, arguments, home };
        self.add_queue(queue.clone());
        if kind == QueueKind::Stream {
            self.add_stream_topic(&queue);
        }
        self.version += 1;
        Ok(queue)
    }

    pub(crate) fn draw_queue_id(&mut self) -> QueueId {
        self.next_queue += 1;
        QueueId(self.next_queue - 1)
    }

    fn check_group(&self, group: GroupId) -> Result<(), Refusal> {
        if self.groups.contains_key(&group) {
            return Ok(());
        }
        Err(Refusal::Unavailable(format!("group {group}, chosen for the queue, does not exist"), true))
    }

    /// Indexes a queue of an existing virtual host, or a coordinator, which is of none.
    pub(crate) fn add_queue(&mut self, queue: QueueRecord) {
        if queue.kind == QueueKind::Coordinator {
            self.coordinators.push(queue.target());
            self.queues.insert(queue.id, queue);
            return;
        }
        let vhost = self.vhosts.get_mut(&queue.vhost).expect("the virtual host of a queue exists");
        vhost.queues.insert(queue.name.clone(), queue.target());
        if let Some(owner) = queue.exclusive {
            self.held.entry(owner).or_default().insert(queue.id);
        }
        if let Some(home) = queue.home {
            self.homes.entry(home.place()).or_default().queues.insert(queue.id);
        }
        self.queues.insert(queue.id, queue);
    }

    /// Removes queues with their bindings and returns them as they were.
    pub(crate) fn remove_queues(&mut self, ids: impl IntoIterator<Item = QueueId>) -> Vec<QueueRecord> {
        ids.into_iter().filter_map(|id| self.remove_queue(id)).collect()
    }

    fn remove_queue(&mut self, id: QueueId) -> Option<QueueRecord> {
        let queue = self.queues.remove(&id)?;
        if queue.kind == QueueKind::Coordinator {
            self.coordinators.retain(|coordinator| coordinator.queue != id);
            return Some(queue);
        }
        if let Some((topic, _)) = self.topic_of.get(&id).copied() {
            self.forget_topic(topic);
        }
        let vhost = self.vhosts.get_mut(&queue.vhost).expect("the virtual host of a queue exists");
        vhost.queues.remove(&queue.name);
        if let Some(owner) = queue.exclusive {
            let held = self.held.get_mut(&owner).expect("an exclusive queue is held");
            held.remove(&id);
            if held.is_empty() {
                self.held.remove(&owner);
            }
        }
        if let Some(home) = queue.home {
            let place = self.homes.get_mut(&home.place()).expect("a queue in memory is known at its home");
            place.queues.remove(&id);
            self.drop_empty_home(home.place());
        }
        self.remove_bindings_to_queue(Destination::Queue(id));
        self.version += 1;
        Some(queue)
    }

    pub(crate) fn delete_queue(
        &mut self,
        vhost: &str,
        name: &str,
        owner: Option<Owner>,
        conditional: bool,
    ) -> Result<Answer, Refusal> {
        let mut queues = Vec::new();
        if let Some(queue) = self.queue(vhost, name) {
            queue.check_access(owner)?;
            if conditional && queue.kind == QueueKind::Stream {
                let text =
                    format!("stream '{name}' cannot be deleted on the condition that it is unused or empty");
                return Err(Refusal::Unsupported(text));
            }
            self.check_deletable(queue)?;
            queues = self.remove_queues([queue.id]);
        }
        Ok(Answer::DeletedQueues { queues })
    }

    pub(crate) fn end_connection(&mut self, owner: Owner) -> Answer {
        let held: Vec<_> = self.held.get(&owner).into_iter().flatten().copied().collect();
        Answer::DeletedQueues { queues: self.remove_queues(held) }
    }

    pub(crate) fn unused_auto_delete(&mut self, queue: QueueId) -> Answer {
        let goes = self.queues.get(&queue).filter(|queue| queue.auto_delete).map(|queue| queue.id);
        Answer::DeletedQueues { queues: self.remove_queues(goes) }
    }

    /// The queue of this name.
    pub fn queue(&self, vhost: &str, name: &str) -> Option<&QueueRecord> {
        let target = self.vhosts.get(vhost)?.queues.get(name)?;
        self.queues.get(&target.queue)
    }

    /// The queue of this id.
    pub fn queue_by_id(&self, id: QueueId) -> Option<&QueueRecord> {
        self.queues.get(&id)
    }

    /// What a passive declaration of a queue answers, and the check that comes before any use of one.
    pub fn passive_queue(
        &self,
        vhost: &str,
        name: &str,
        owner: Option<Owner>,
    ) -> Result<&QueueRecord, Refusal> {
        if !self.has_vhost(vhost) {
            return Err(not_found(Entity::Vhost, vhost));
        }
        let queue = self.queue(vhost, name).ok_or_else(|| not_found(Entity::Queue, name))?;
        queue.check_access(owner)?;
        Ok(queue)
    }

    /// All queues, oldest first.
    pub fn queues(&self) -> impl Iterator<Item = &QueueRecord> {
        self.queues.values()
    }

    /// The exclusive queues of one connection.
    pub fn queues_of(&self, owner: Owner) -> impl Iterator<Item = &QueueRecord> {
        self.held.get(&owner).into_iter().flatten().map(|id| &self.queues[id])
    }
}

/// Whether a queue is what is declared again. A declaration that says otherwise about exclusiveness is locked out even
/// from the connection that holds the queue, as clients know it.
fn check_same(had: &QueueRecord, given: &QueueDeclaration, owner: Option<Owner>) -> Result<(), Refusal> {
    if had.exclusive != owner.filter(|_| given.exclusive) {
        return Err(Refusal::Locked(had.name.clone()));
    }
    let durable = given.durable && !given.exclusive;
    for (argument, given, had_it) in
        [("durable", durable, had.durable), ("auto_delete", given.auto_delete, had.auto_delete)]
    {
        if given != had_it {
            let (given, had_it) = (given.to_string(), had_it.to_string());
            return Err(Refusal::Inequivalent(Entity::Queue, had.name.clone(), argument, given, had_it));
        }
    }
    if had.kind == QueueKind::Stream && had.arguments.get("x-queue-type").is_none() {
        // It was created as a partition of a topic, by a client that knows no arguments.
        let mut typed = had.arguments.clone();
        typed.0.push(("x-queue-type".into(), Value::text("stream")));
        return check_same_queue(&had.name, &typed, &given.arguments);
    }
    check_same_queue(&had.name, &had.arguments, &given.arguments)
}
