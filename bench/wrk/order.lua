-- Orders for wrk: a key of its own for each request, the token from TOKEN.
--   TOKEN=fg_... wrk -t1 -c64 -d10s --latency -s bench/wrk/order.lua http://127.0.0.1:8080
-- One line of SKU (default FLASH-001). With ORDER_LINES and SKUS it is so many lines of PREFIX0001 to PREFIX<SKUS>, drawn evenly.
-- CUSTOMER is who orders (default u-00000000). Prints the answers by status: only 201 is an order.
-- With IDS it tells standard error when the load has stopped, waits for a line, and writes the ids of the orders there.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *); ]]

local token = os.getenv("TOKEN") or error("set TOKEN")
local customer = os.getenv("CUSTOMER") or "u-00000000"
local lines = tonumber(os.getenv("ORDER_LINES") or 0)
local skus = tonumber(os.getenv("SKUS") or 0)
assert(skus >= lines, "SKUS has to be at least ORDER_LINES")
local prefix = os.getenv("PREFIX") or "BENCH-"
local ids_file = os.getenv("IDS")
local head = '{"channel":"app","currency":"CNY","items":['
local tail = '],"customer_id":"' .. customer .. '",' ..
  '"note":"请放在门口，到货前请先打电话，谢谢您了。","ship_to":{"name":"王小明","phone":"13800000000","country":"CN",' ..
  '"province":"浙江省","city":"杭州市","district":"西湖区","street":"文三路 1 号","postcode":"310012"}}'
local body = head .. '{"sku":"' .. (os.getenv("SKU") or "FLASH-001") .. '","quantity":1}' .. tail
local threads = {}
-- The id of an order stands first in its answer: {"order_id":"
local ID_FROM, ID_TO = 14, 49

local function now()
  local moment = ffi.new("moment")
  ffi.C.clock_gettime(1, moment) -- CLOCK_MONOTONIC, the clock of whoever started us
  return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

local function drawn()
  local items, taken = {}, {}
  while #items < lines do
    local number = math.random(skus)
    if not taken[number] then
      taken[number] = true
      items[#items + 1] = string.format('{"sku":"%s%04d","quantity":1}', prefix, number)
    end
  end
  return head .. table.concat(items, ",") .. tail
end

function setup(thread)
  table.insert(threads, thread)
end

function init()
  sent, statuses, ids = 0, {}, {}
  local random = assert(io.open("/dev/urandom", "rb"))
  run = random:read(12):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  math.randomseed(tonumber(run:sub(1, 8), 16))
  random:close()
end

function request()
  sent = sent + 1
  return wrk.format("POST", "/v1/orders", {
    ["Authorization"] = "Bearer " .. token,
    ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = run .. "-" .. sent,
  }, lines > 0 and drawn() or body)
end

function response(status, _, answer)
  statuses[status] = (statuses[status] or 0) + 1
  if status == 201 then ids[#ids + 1] = answer:sub(ID_FROM, ID_TO) end
end

local function hand_over()
  io.stderr:write(string.format("stopped %.6f\n", now()))
  io.read("*l")
  local file = assert(io.open(ids_file, "w"))
  for _, thread in ipairs(threads) do
    file:write(table.concat(thread:get("ids"), "\n"), "\n")
  end
  file:close()
end

function done(summary, latency)
  if ids_file then hand_over() end
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + count end
  end
  for status, count in pairs(all) do print(string.format("HTTP %d: %d", status, count)) end
  local errors = summary.errors
  print(string.format("seconds %.6f p50_ms %.3f p99_ms %.3f unanswered %d", summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.timeout))
end
