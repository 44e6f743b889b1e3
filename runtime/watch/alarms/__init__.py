"""Alarms of streams: which pictures raise one, and who is told.

| module | what is in it |
|---|---|
| alarms, rules | `Alarms`: which pictures raise one, and how often; what a rule is |
| snapshots | pictures and JSON of alarms |
| delivery, webhook, mqtt | alarms to receivers: the queue with its attempts; over HTTP; over MQTT |
"""
