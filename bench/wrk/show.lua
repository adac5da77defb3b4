-- GET of orders by id, drawn evenly from the file that SHOWN names, one id a line; the token from TOKEN.
--   TOKEN=fg_... SHOWN=ids.txt wrk -t1 -c64 -d10s --latency -s bench/wrk/show.lua http://127.0.0.1:8080
-- Prints the answers by status. With IDS it tells standard error when the load has stopped, and waits for a line.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *); ]]

local token = os.getenv("TOKEN") or error("set TOKEN")
local shown = os.getenv("SHOWN") or error("set SHOWN")
local ids_file = os.getenv("IDS")
local threads = {}

function setup(thread)
  thread:set("number", #threads + 1)
  table.insert(threads, thread)
end

function init()
  statuses, requests = {}, {}
  math.randomseed(os.time() + number)
  for id in io.lines(shown) do
    requests[#requests + 1] = wrk.format("GET", "/v1/orders/" .. id, { ["Authorization"] = "Bearer " .. token })
  end
end

function request()
  return requests[math.random(#requests)]
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

local function hand_over()
  local moment = ffi.new("moment")
  ffi.C.clock_gettime(1, moment) -- CLOCK_MONOTONIC, the clock of whoever started us
  io.stderr:write(string.format("stopped %.6f\n", tonumber(moment.s) + tonumber(moment.ns) / 1e9))
  io.read("*l")
  assert(io.open(ids_file, "w")):close() -- No orders were placed.
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
