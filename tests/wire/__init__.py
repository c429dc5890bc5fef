"""What goes over the wire: values, errors, frames, and what strangers send."""
