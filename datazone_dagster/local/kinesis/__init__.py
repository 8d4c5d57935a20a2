"""Kinesis Data Streams, as far as DynamoDB writes to them and a reader reads them."""
