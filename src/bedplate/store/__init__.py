"""The SQL database: one repository file per aggregate, migrations."""
