"""The edge role: sockets, ingress, subscriptions and fan-out."""
