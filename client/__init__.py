"""What runs inside a hospital. The only package that touches patient rows."""
