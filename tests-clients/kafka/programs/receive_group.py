"""The third program: a member of a group that begins at the beginning."""
from kafka import KafkaConsumer

consumer = KafkaConsumer('test', bootstrap_servers=['localhost:9092'], group_id='my-group', auto_offset_reset='earliest')
for message in consumer:
    print(message, flush=True)
