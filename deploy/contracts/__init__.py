"""What the outside builds on, as files: the JSON Schema of each event type, and one event of each to the byte."""
