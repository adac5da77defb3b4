-- commit_whole: commit_batch for a caller who has sent the rows of all orders behind it already, unseen. It says nothing when every order lives, and raises FG001
-- when one does not: then the statements behind it are skipped, COMMIT among them, and the caller comes again step by step, with the rows of the living alone.
create function commit_whole(p_batch uuid, p_key uuid[], p_order uuid[], p_fingerprint uuid[], d_order integer[], d_lease uuid[], d_units bigint[],
                             l_order integer[], l_sku text[], l_customer text[], l_units bigint[], l_max bigint[])
returns void
language plpgsql as $$
begin
    perform 1 from commit_batch(p_batch, p_key, p_order, p_fingerprint, d_order, d_lease, d_units, l_order, l_sku, l_customer, l_units, l_max);
    if found then
        raise exception using errcode = 'FG001', message = 'an order of the batch is refused';
    end if;
end $$;
