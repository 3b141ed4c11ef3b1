"""The RabbitMQ side: topology, publishing tickets and answers, consuming claims and reports."""
