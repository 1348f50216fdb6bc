"""Gates, bundles, signatures, approvals."""
