-- Told what some shards of a SKU hold, keeps the higher version of each, and their sum while every shard is known.
-- KEYS[1]: the SKU's hash. ARGV: how long a shard's state is good for in ms; then shard, free and version of each one told.
-- Fields: the shard's number -> 'version free told_at_ms'; 'pool' -> 'version free', summed, while no shard below the highest is missing.
-- The key lives as long as the shard told about longest ago is good: what is read is never older, however often the other shards are told about.
-- The same version again is the same state, confirmed. The time is this server's, as that of its expiry.
-- Numbers are whole, 0 to 2^53, which a double holds exactly.
-- A call with anything else is refused before it has changed anything: a script that fails half-way is not undone.
local function is_count(text)
    return text and #text <= 16 and (text == '0' or string.match(text, '^[1-9]%d*$')) and tonumber(text) <= 9007199254740992
end
if #ARGV % 3 ~= 1 then
    return redis.error_reply('ERR a time, and three numbers for each shard')
end
for i = 1, #ARGV do
    if not is_count(ARGV[i]) then
        return redis.error_reply('ERR argument ' .. i .. ' is no number from 0 to 2^53')
    end
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local shards = {}

local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    local version, free, told_at_ms = string.match(stored[i + 1], '^(%d+) (%d+) (%d+)$')
    if is_count(stored[i]) and is_count(version) and is_count(free) and is_count(told_at_ms) then
        shards[stored[i]] = { version = tonumber(version), free = tonumber(free), told_at_ms = tonumber(told_at_ms) }
    end
end

for i = 2, #ARGV, 3 do
    local shard, free, version = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if not shards[shard] or version >= shards[shard].version then
        shards[shard] = { version = version, free = free, told_at_ms = now_ms }
        redis.call('HSET', KEYS[1], shard, string.format('%.0f %.0f %.0f', version, free, now_ms))
    end
end

local known, highest, version, free, oldest_ms = 0, -1, 0, 0, now_ms
for shard, state in pairs(shards) do
    known = known + 1
    highest = math.max(highest, tonumber(shard))
    version = version + state.version
    free = free + state.free
    oldest_ms = math.min(oldest_ms, state.told_at_ms)
end
if known == highest + 1 then
    redis.call('HSET', KEYS[1], 'pool', string.format('%.0f %.0f', version, free))
else
    redis.call('HDEL', KEYS[1], 'pool')
end
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', oldest_ms + tonumber(ARGV[1])))
