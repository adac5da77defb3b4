-- Adds what a worker has let through to the common times of GCRA, and says how far each is ahead of now.
-- KEYS: one for each meter, all in one slot. ARGV[1]: for each key three doubles, what was charged, how long ago the first of it was, and how far ahead of now the time may get, in microseconds.
-- A value is the theoretical arrival time, and when it was written, in microseconds of this server's clock. What is charged counts from its first moment, as it did in the worker. A key outlives its time by a second, since it is told of late.
-- A clock that was stepped back, or a replica's that is behind, takes the times along, so that it locks nobody out. The time never gets further ahead than told. Replies with one integer for each key, negative where the time has passed.
-- Numbers are 0 to 2^53. A call with anything else is refused before it has changed anything: a script that fails half-way is not undone.
if #ARGV ~= 1 or #ARGV[1] ~= 24 * #KEYS then
    return redis.error_reply('ERR three doubles for each key')
end
for i = 1, 3 * #KEYS do
    local number = struct.unpack('<d', ARGV[1], 8 * i - 7)
    if not (number >= 0 and number <= 9007199254740992) then
        return redis.error_reply('ERR number ' .. i .. ' is not from 0 to 2^53')
    end
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = {}

for i = 1, #KEYS do
    local charged, age, most = struct.unpack('<ddd', ARGV[1], 24 * i - 23)
    local stored, written = string.match(redis.call('GET', KEYS[i]) or '', '^(%d+) (%d+)$')
    stored = tonumber(stored or '0') - math.max(tonumber(written or '0') - now, 0)
    local due = math.min(math.max(stored, now - age) + charged, now + most)
    redis.call('SET', KEYS[i], string.format('%.0f %.0f', due, now), 'PX', math.ceil(math.max(due - now, 0) / 1000) + 1000)
    ahead[i] = due - now
end
return ahead
