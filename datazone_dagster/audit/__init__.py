"""Audit: a fresh scan of the table, compared with the datasets by key and hash of the rows."""

from datazone_dagster.audit.audit_run import audit_source, plan_audit

__all__ = ["audit_source", "plan_audit"]
