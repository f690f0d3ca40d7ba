"""What a model's owner runs: inspect, bench, doctor.  May import everything below the server."""
