"""What the front doors share: handshake between ranks, exemptions, gradient clipping, density schedules."""
