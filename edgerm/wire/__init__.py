"""Messages on the wire: generated protobuf classes, their JSON form, and RecordIO framing. Imported by edges only."""
