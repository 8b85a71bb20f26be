-- Leadership among processes of which only one needs to act: the schedulers. A lease, not a lock: see the store's leaders.rs.
CREATE TABLE leaders (
    name TEXT NOT NULL PRIMARY KEY,
    -- The process incarnation that leads, or did last.
    holder TEXT NOT NULL,
    -- Rises with each change of the holder.
    epoch BIGINT NOT NULL,
    lease_until BIGINT NOT NULL
);
