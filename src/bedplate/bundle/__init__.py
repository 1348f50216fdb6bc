"""What training emits, release signs and serving loads: manifest, formats, signature, bill of materials."""
