"""aiokafka: producers and consumers in their default settings, groups, offsets, administration."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from conftest import numbers


async def send(server, topic, values, **settings):
    """Offsets of the values."""
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap, **settings) as producer:
        waiting = []
        for value in values:
            waiting.append(await producer.send(topic, **(value if isinstance(value, dict) else {"value": value})))
        return [(await one).offset for one in waiting]


def consumer(server, *topics, **settings):
    given = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **settings}
    return AIOKafkaConsumer(*topics, bootstrap_servers=server.bootstrap, **given)


async def take(reader, count, timeout=25):
    async def all_of_them():
        return [await reader.getone() for _ in range(count)]

    return await asyncio.wait_for(all_of_them(), timeout)


def test_hello(server, names, group):
    async def hello():
        topic = names.topic()
        async with AIOKafkaProducer(bootstrap_servers=server.bootstrap) as producer:
            made = await producer.send_and_wait(topic, b"Hello, World!")
        async with AIOKafkaConsumer(topic, bootstrap_servers=server.bootstrap, group_id=group, auto_offset_reset="earliest") as reader:
            (found,) = await take(reader, 1)
        assert (made.offset, found.offset, found.value) == (0, 0, b"Hello, World!")

    asyncio.run(hello())


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_whole(server, topic, codec, idempotent):
    async def there_and_back():
        name, base = topic(retention_ms=-1), 1_700_000_000_000
        sent = [{"value": b"%d" % n * (n % 50), "key": b"k%d" % n, "timestamp_ms": base + n, "headers": [("h", b"%d" % n)]} for n in range(500)]
        sent += [{"value": None, "key": b"tombstone", "timestamp_ms": base, "headers": []}]
        offsets = await send(server, name, sent, compression_type=codec, enable_idempotence=idempotent, linger_ms=5)
        assert offsets == list(range(len(sent)))
        async with consumer(server, name) as reader:
            found = await take(reader, len(sent))
        assert [{"value": one.value, "key": one.key, "timestamp_ms": one.timestamp, "headers": list(one.headers)} for one in found] == sent

    asyncio.run(there_and_back())


def test_a_group_shares_and_goes_on(server, topic, group):
    async def share():
        name = topic(4)
        await send(server, name, [{"value": b"%d" % n, "partition": n % 4} for n in range(40)])
        quick = {"group_id": group, "session_timeout_ms": 6000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 1000}
        async with consumer(server, name, **quick) as first:
            found = await take(first, 20)
            await first.commit({TopicPartition(one.topic, one.partition): one.offset + 1 for one in found})
            async with consumer(server, name, **quick) as second:
                for _ in range(300):
                    if len(first.assignment()) == len(second.assignment()) == 2:
                        break
                    await first.getmany(timeout_ms=20)  # What it reads now is not committed and comes again.
                    await asyncio.sleep(0.05)
                assert first.assignment() | second.assignment() == {TopicPartition(name, at) for at in range(4)}
        async with consumer(server, name, **quick) as third:
            rest = await take(third, 20)
        assert sorted(int(one.value) for one in found + rest) == list(range(40))

    asyncio.run(share())


def test_offsets(server, topic, group):
    async def offsets():
        name, base = topic(retention_ms=-1), 1_700_000_000_000
        await send(server, name, [{"value": value, "timestamp_ms": base + 10 * at} for at, value in enumerate(numbers(20))])
        place = TopicPartition(name, 0)
        async with consumer(server, group_id=group) as reader:
            reader.assign([place])
            assert await reader.beginning_offsets([place]) == {place: 0}
            assert await reader.end_offsets([place]) == {place: 20}
            found = await reader.offsets_for_times({place: base + 95})
            assert (found[place].offset, found[place].timestamp) == (10, base + 100)
            reader.seek(place, 15)
            assert [one.value for one in await take(reader, 5)] == numbers(5, first=15)
            await reader.seek_to_beginning(place)
            assert [one.value for one in await take(reader, 2)] == numbers(2)
            await reader.commit()
            assert await reader.committed(place) == 2
            await reader.seek_to_end(place)
            assert await reader.position(place) == 20
            await reader.seek_to_committed(place)
            assert [one.value for one in await take(reader, 1)] == [b"2"]

    asyncio.run(offsets())


async def is_listed(admin, name):
    return name in await admin.list_topics()


async def settled(condition, timeout=10):
    """Asks again until it holds."""
    async def holds():
        while not await condition():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(holds(), timeout)


def test_administration(server, names, group):
    async def administrate():
        name, admin = names.topic(), AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, 2, 1)])
            await settled(lambda: is_listed(admin, name))
            (described,) = await admin.describe_topics([name])
            assert (described["topic"], len(described["partitions"])) == (name, 2)
            await send(server, name, [{"value": b"x", "partition": 0}])
            async with consumer(server, name, group_id=group) as reader:
                await take(reader, 1)
                await reader.commit()
                assert group in [one[0] for one in await admin.list_consumer_groups()]
            committed = await admin.list_consumer_group_offsets(group)
            assert committed[TopicPartition(name, 0)].offset == 1
            await admin.delete_topics([name])

            async def is_gone():
                return not await is_listed(admin, name)

            await settled(is_gone)
            assert server.partitions(name) == 0
        finally:
            await admin.close()

    asyncio.run(administrate())
