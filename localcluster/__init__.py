"""A real Kubernetes and a real RabbitMQ on a bare Debian machine."""
