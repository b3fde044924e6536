//! proto-amqp.
