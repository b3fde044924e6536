"""The second program of every kafka-python user, exactly as they write it."""
from kafka import KafkaConsumer

consumer = KafkaConsumer('test', bootstrap_servers=['localhost:9092'])
for message in consumer:
    print(message, flush=True)
