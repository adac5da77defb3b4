-- Told how many units of a SKU are available, keeps what the ledger said last: field 'available' -> 'at_ms units'.
-- KEYS[1]: the SKU's hash. ARGV: how long a new key lives in ms; the units; when the ledger said so, in its own ms.
-- A key that is there already goes when its shards do: this is no news of them.
-- Numbers are whole, 0 to 2^53, which a double holds exactly.
-- A call with anything else is refused before it has changed anything: a script that fails half-way is not undone.
local function is_count(text)
    return text and #text <= 16 and (text == '0' or string.match(text, '^[1-9]%d*$')) and tonumber(text) <= 9007199254740992
end
for i = 1, 3 do
    if not is_count(ARGV[i]) then
        return redis.error_reply('ERR argument ' .. i .. ' is no number from 0 to 2^53')
    end
end

local stored = redis.call('HGET', KEYS[1], 'available')
local known_ms = stored and tonumber(string.match(stored, '^(%d+) '))
if not known_ms or tonumber(ARGV[3]) >= known_ms then
    redis.call('HSET', KEYS[1], 'available', ARGV[3] .. ' ' .. ARGV[2])
    if redis.call('PTTL', KEYS[1]) < 0 then
        redis.call('PEXPIRE', KEYS[1], ARGV[1])
    end
end
