-- Processes are counted by role, and dead ones looked for, every few seconds.
CREATE INDEX workers_by_role ON workers (role, lease_until);
CREATE INDEX workers_by_lease ON workers (lease_until);
