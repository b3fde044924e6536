"""Delivery and its end with pika: acknowledge, requeue to the original place, redelivered flags, prefetch, get."""

import pika
import pytest

from conftest import bodies, fill, nothing_comes, ready, take, until


@pytest.fixture(params=[True, False], ids=["durable", "memory"])
def queue(request, channel, names):
    """An empty queue: logged or in memory only; both must behave alike."""
    name = names.queue()
    if request.param:
        channel.queue_declare(name, durable=True)
    else:
        channel.queue_declare(name, durable=False)
    return name


def tags(taken):
    return [method.delivery_tag for method, _, _ in taken]


def redelivered(taken):
    return [method.redelivered for method, _, _ in taken]


def settled(channel, queue):
    """After this the settlements sent on the channel have taken effect."""
    return ready(channel, queue)


def test_deliveries_are_numbered_and_fresh(channel, queue):
    fill(channel, queue, 5)
    found = take(channel, queue, 5)
    assert bodies(found) == [0, 1, 2, 3, 4]
    assert tags(found) == [1, 2, 3, 4, 5]
    assert redelivered(found) == [False] * 5
    assert all(method.exchange == "" and method.routing_key == queue for method, _, _ in found)


@pytest.mark.parametrize("how", ["nack", "nack multiple", "reject", "recover", "close channel"])
def test_requeued_messages_return_to_their_original_place(connect, queue, how):
    channel = connect().channel()
    fill(channel, queue, 10)
    held = take_some(channel, queue, 6)
    assert bodies(held) == [0, 1, 2, 3, 4, 5]
    channel.basic_ack(held[2][0].delivery_tag)
    back = {
        "nack": lambda: [channel.basic_nack(tag, requeue=True) for tag in (6, 4, 5, 1, 2)],
        "nack multiple": lambda: channel.basic_nack(6, multiple=True, requeue=True),
        "reject": lambda: [channel.basic_reject(tag, requeue=True) for tag in (2, 1, 6, 5, 4)],
        "recover": lambda: channel.basic_recover(requeue=True),
        "close channel": channel.close,
    }
    back[how]()
    other = connect().channel()
    until(lambda: ready(other, queue) == 9)
    found = take(other, queue, 9)
    assert bodies(found) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert redelivered(found) == [True] * 5 + [False] * 4


def take_some(channel, queue, count):
    """Takes exactly `count`, leaving the rest ready."""
    found = [channel.basic_get(queue) for _ in range(count)]
    assert all(method is not None for method, _, _ in found)
    return found


def test_one_requeued_message_comes_next(channel, queue):
    fill(channel, queue, 5)
    first, second = take_some(channel, queue, 2)
    channel.basic_nack(first[0].delivery_tag, requeue=True)
    again = take_some(channel, queue, 4)
    assert bodies(again) == [0, 2, 3, 4]
    assert redelivered(again) == [True, False, False, False]
    channel.basic_nack(second[0].delivery_tag, requeue=True)
    assert bodies(take_some(channel, queue, 1)) == [1]


def test_a_consumer_gets_back_what_it_requeued(channel, queue):
    fill(channel, queue, 3)
    seen = []

    def work(ch, method, _, body):
        seen.append((int(body), method.redelivered))
        ch.basic_ack(method.delivery_tag) if method.redelivered else ch.basic_nack(method.delivery_tag, requeue=True)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, work)
    until(lambda: nothing_comes(channel, 0.02) or len(seen) == 6)
    assert seen == [(0, False), (0, True), (1, False), (1, True), (2, False), (2, True)]


def test_multiple_ack_covers_exactly_what_it_names(connect, channel, queue):
    fill(channel, queue, 6)
    found = take(channel, queue, 6)
    channel.basic_ack(found[3][0].delivery_tag, multiple=True)
    settled(channel, queue)
    channel.close()
    other = connect().channel()
    until(lambda: ready(other, queue) == 2)
    assert bodies(take(other, queue, 2)) == [4, 5]


def test_ack_of_zero_with_multiple_covers_everything(connect, channel, queue):
    fill(channel, queue, 4)
    take(channel, queue, 4)
    channel.basic_ack(0, multiple=True)
    settled(channel, queue)
    channel.connection.close()
    assert ready(connect().channel(), queue) == 0


@pytest.mark.parametrize("how", ["ack", "reject", "nack", "auto ack"])
def test_settled_messages_do_not_return(connect, channel, queue, how):
    fill(channel, queue, 4)
    found = take(channel, queue, 4, auto_ack=how == "auto ack")
    for tag in tags(found):
        if how == "ack":
            channel.basic_ack(tag)
        elif how == "reject":
            channel.basic_reject(tag, requeue=False)
        elif how == "nack":
            channel.basic_nack(tag, requeue=False)
    settled(channel, queue)
    channel.connection.close()
    other = connect().channel()
    assert ready(other, queue) == 0
    assert other.basic_get(queue) == (None, None, None)


def test_unsettled_messages_return_when_the_connection_ends(connect, channel, queue):
    fill(channel, queue, 5)
    holder = connect().channel()
    assert bodies(take(holder, queue, 5)) == [0, 1, 2, 3, 4]
    assert ready(channel, queue) == 0
    holder.connection.close()
    until(lambda: ready(channel, queue) == 5)
    again = take(channel, queue, 5)
    assert bodies(again) == [0, 1, 2, 3, 4] and redelivered(again) == [True] * 5


def test_messages_in_flight_are_not_given_to_anyone_else(connect, channel, queue):
    fill(channel, queue, 5)
    take_some(channel, queue, 3)
    other = connect().channel()
    assert bodies(take(other, queue, 2)) == [3, 4]
    assert other.basic_get(queue) == (None, None, None)


def test_cancel_leaves_what_is_held_with_the_channel(channel, queue):
    fill(channel, queue, 3)
    found = take(channel, queue, 3)
    fill(channel, queue, 1, first=3)
    assert ready(channel, queue) == 1
    for tag in tags(found):
        channel.basic_ack(tag)
    until(lambda: ready(channel, queue) == 1)


def holding_at_most(channel, seen, count):
    """Waits until `count` have come and sees that no more do."""
    until(lambda: nothing_comes(channel, 0.02) or len(seen) >= count)
    nothing_comes(channel)
    assert len(seen) == count


def test_prefetch_bounds_each_consumer(channel, queue):
    fill(channel, queue, 20)
    first, second = [], []
    channel.basic_qos(prefetch_count=3)
    channel.basic_consume(queue, lambda _c, method, _p, _b: first.append(method.delivery_tag))
    holding_at_most(channel, first, 3)
    channel.basic_qos(prefetch_count=5)
    channel.basic_consume(queue, lambda _c, method, _p, _b: second.append(method.delivery_tag))
    holding_at_most(channel, second, 5)
    assert len(first) == 3, "a later qos does not change an earlier consumer"
    channel.basic_ack(first[0])
    holding_at_most(channel, first, 4)
    channel.basic_nack(second[0], requeue=True)
    holding_at_most(channel, second, 6)


def test_global_prefetch_bounds_the_channel(channel, queue):
    fill(channel, queue, 20)
    seen = []
    channel.basic_qos(prefetch_count=4, global_qos=True)
    for _ in range(3):
        channel.basic_consume(queue, lambda _c, method, _p, _b: seen.append(method.delivery_tag))
    holding_at_most(channel, seen, 4)
    channel.basic_ack(seen[1], multiple=True)
    holding_at_most(channel, seen, 6)
    channel.basic_qos(prefetch_count=0, global_qos=True)
    holding_at_most(channel, seen, 20)


def test_global_and_own_prefetch_bound_together(channel, queue):
    fill(channel, queue, 20)
    seen = [[], []]
    channel.basic_qos(prefetch_count=3)
    channel.basic_qos(prefetch_count=5, global_qos=True)
    for mine in seen:
        channel.basic_consume(queue, lambda _c, method, _p, _b, mine=mine: mine.append(method.delivery_tag))
    both = lambda: len(seen[0]) + len(seen[1])
    until(lambda: nothing_comes(channel, 0.02) or both() >= 5)
    nothing_comes(channel)
    assert both() == 5 and max(map(len, seen)) == 3


def test_prefetch_does_not_bound_auto_ack_nor_get(channel, queue):
    fill(channel, queue, 10)
    channel.basic_qos(prefetch_count=2)
    take_some(channel, queue, 4)
    assert bodies(take(channel, queue, 6, auto_ack=True)) == [4, 5, 6, 7, 8, 9]


def test_get_counts_what_stays(channel, queue):
    fill(channel, queue, 3)
    for left in (2, 1, 0):
        method, _, body = channel.basic_get(queue)
        assert (method.message_count, int(body), method.redelivered) == (left, 2 - left, False)
    assert channel.basic_get(queue) == (None, None, None)


def test_get_with_requeue_marks_the_message(channel, queue):
    fill(channel, queue, 1)
    method, _, _ = channel.basic_get(queue)
    channel.basic_reject(method.delivery_tag, requeue=True)
    assert channel.basic_get(queue)[0].redelivered is True


def test_delivery_tags_belong_to_their_channel(connect, queue):
    connection = connect()
    first, second = connection.channel(), connection.channel()
    fill(first, queue, 2)
    assert take_some(first, queue, 1)[0][0].delivery_tag == 1
    assert take_some(second, queue, 1)[0][0].delivery_tag == 1
    first.basic_ack(1)
    settled(first, queue)
    second.basic_reject(1, requeue=True)
    until(lambda: ready(second, queue) == 1)


def test_consumer_priorities(connect, channel, queue):
    seen = {"high": [], "low": []}
    for who, priority in (("low", -1), ("high", 10)):
        channel.basic_qos(prefetch_count=3)
        channel.basic_consume(queue, lambda _c, _m, _p, body, who=who: seen[who].append(int(body)), arguments={"x-priority": priority})
    sender = connect().channel()
    for number in range(5):
        sender.basic_publish("", queue, str(number))
    until(lambda: nothing_comes(channel, 0.02) or sum(map(len, seen.values())) == 5)
    assert seen == {"high": [0, 1, 2], "low": [3, 4]}


def test_recover_without_requeue_is_refused_or_redelivers(channel, queue):
    """RabbitMQ never implemented it: 540, and the connection ends."""
    fill(channel, queue, 1)
    take_some(channel, queue, 1)
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        channel.basic_recover(requeue=False)
    assert closed.value.reply_code == 540


def test_publisher_gets_its_own_confirms_only_after_the_queue_has_it(connect, channel, queue):
    channel.confirm_delivery()
    reader = connect().channel()
    for number in range(50):
        channel.basic_publish("", queue, str(number), pika.BasicProperties(delivery_mode=2))
        method, _, body = reader.basic_get(queue, auto_ack=True)
        assert method is not None and int(body) == number
