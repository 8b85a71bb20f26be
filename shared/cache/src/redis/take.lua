-- Takes a token out of a bucket if there is one; the arithmetic of rate_limit.rs, and that file says what the units are.
-- KEYS[1]: the bucket. ARGV: rate (units per microsecond), capacity (units), one token (units), a believable step back
-- of the clock (microseconds). Answers {1 if allowed else 0, the level}.
local rate, capacity, token, step_back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local level, at, stepped = capacity, now, false
local kept = redis.call('GET', KEYS[1])
if kept then
  local kept_level, kept_at = string.match(kept, '^(%d+) (%d+)$')
  if kept_level then
    level, at = tonumber(kept_level), tonumber(kept_at)
    stepped = at - now > step_back
    if now > at then level = level + (now - at) * rate end
    if now > at or stepped then at = now end
    if level > capacity then level = capacity end
  end
end

local allowed = 0
if level >= token then
  allowed = 1
  level = level - token
end
-- A refusal changes nothing, so nothing is written. A bucket that would be full again needs no key.
if allowed == 1 or stepped then
  local until_full = math.ceil((capacity - level) / rate / 1000) + 1000
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', level, at), 'PX', string.format('%.0f', until_full))
end
return {allowed, level}
