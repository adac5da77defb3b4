-- One-line orders for wrk: a key of its own for each request, the token from TOKEN, the SKU from SKU (default FLASH-001).
--   TOKEN=fg_... wrk -t2 -c64 -d10s --latency -s bench/wrk/order.lua http://127.0.0.1:8080
-- Prints the answers by status: only 201 is an order.
local token = os.getenv("TOKEN") or error("set TOKEN")
local sku = os.getenv("SKU") or "FLASH-001"
local threads = {}
local body = '{"channel":"app","currency":"CNY","items":[{"sku":"' .. sku .. '","quantity":1}],"customer_id":"u-1",' ..
  '"note":"请放在门口，到货前请先打电话，谢谢您了","ship_to":{"name":"王小明","phone":"13800000000","country":"CN",' ..
  '"province":"浙江省","city":"杭州市","district":"西湖区","street":"文三路 1 号","postcode":"310012"}}'

function setup(thread)
  thread:set("number", #threads + 1)
  table.insert(threads, thread)
end

function init()
  sent, statuses = 0, {}
  run = string.format("%d-%d-%d", os.time(), number, math.random(1, 1e9))
end

function request()
  sent = sent + 1
  return wrk.format("POST", "/v1/orders", {
    ["Authorization"] = "Bearer " .. token,
    ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = run .. "-" .. sent,
  }, body)
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done()
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + count end
  end
  for status, count in pairs(all) do print(string.format("HTTP %d: %d", status, count)) end
end
