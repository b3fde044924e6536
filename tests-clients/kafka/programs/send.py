"""The first program of every kafka-python user, exactly as they write it."""
from kafka import KafkaProducer

producer = KafkaProducer(bootstrap_servers=['localhost:9092'])
producer.send('test', b'Hello, World!')
producer.flush()
print(" [x] Sent 'Hello, World!'")
