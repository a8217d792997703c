"""Tables, figures and the page, from plain values."""
