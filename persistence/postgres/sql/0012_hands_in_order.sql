-- An owner may have 100,000 active leases. Its heartbeat compares a piece of them with the till, and the next piece at the next beat: an index in their order.
-- It answers what the one by owner alone has answered, which goes, since each index costs every take and every close. It goes first: a migration that first shared
-- the table, and then wanted it alone, would wait for those who wait for it.
drop index stock_lease_owner;
create index stock_lease_hand on stock_lease (owner, lease_id) where state = 'active';
