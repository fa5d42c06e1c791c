"""One file per noun. A route is a thin door: its body is a call or two."""
