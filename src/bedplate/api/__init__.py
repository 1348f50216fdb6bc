"""The JSON API of a home, and the server that carries it together with the pages.

==================  ====================================================
:mod:`.routes`      every route of ``/api/v1``, with its declaration
:mod:`.releases`    approve, refuse, waive
:mod:`.use_cases`   use cases, their plan, runs and evidence
:mod:`.models`      registered models: history, what was live, approvers, conversion
:mod:`.audit`       the ledger: entries, checkpoint, tiles, proofs
:mod:`.people`      users, services and their keys
:mod:`.workspaces`  workspaces
:mod:`.policies`    policies that users wrote
:mod:`.server`      the control plane on one port
==================  ====================================================
"""
