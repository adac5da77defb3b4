-- A flash sale for wrk: buyers look whether the product is there, order it, look at their order, and one in CANCEL (10)
-- cancels it; the others pay later. The token from TOKEN (scopes orders:write and orders:read), the SKU from SKU.
--   TOKEN=fg_... wrk -t1 -c64 -d10s --latency -s bench/wrk/journey.lua http://127.0.0.1:8080
-- Prints the answers by status: 201 are orders, 409 are refusals, 200 is all else that went well.
local token = os.getenv("TOKEN") or error("set TOKEN")
local sku = os.getenv("SKU") or "FLASH-001"
local one_in = tonumber(os.getenv("CANCEL") or 10)
local threads = {}
local authorization = { ["Authorization"] = "Bearer " .. token }
local tail = '","channel":"app","currency":"CNY","items":[{"sku":"' .. sku .. '","quantity":1}],' ..
  '"note":"请放在门口，到货前请先打电话，谢谢您了。","ship_to":{"name":"王小明","phone":"13800000000","country":"CN",' ..
  '"province":"浙江省","city":"杭州市","district":"西湖区","street":"文三路 1 号","postcode":"310012"}}'
-- The id of an order stands first in its answer: {"order_id":"
local ID_FROM, ID_TO = 14, 49

function setup(thread)
  thread:set("number", #threads + 1)
  table.insert(threads, thread)
end

function init()
  buyers, statuses, placed, looked = 0, {}, {}, {}
  math.randomseed(os.time() + number)
  run = string.format("%d-%d-%d", os.time(), number, math.random(1, 1e9))
  has_looked = false
end

local function with(headers)
  for name, value in pairs(authorization) do headers[name] = value end
  return headers
end

local function order()
  buyers = buyers + 1
  local buyer = run .. "-" .. buyers
  return wrk.format("POST", "/v1/orders", with({ ["Content-Type"] = "application/json", ["Idempotency-Key"] = buyer }),
    '{"customer_id":"' .. buyer .. tail)
end

-- What was begun goes on first: an order that was placed is looked at, one in so many of those is cancelled.
function request()
  if #looked > 0 then
    return wrk.format("POST", "/v1/orders/" .. table.remove(looked) .. "/cancel",
      with({ ["Content-Type"] = "application/json", ["If-Match"] = '"1"' }), '{"reason":"changed my mind"}')
  end
  if #placed > 0 then
    local id = table.remove(placed)
    if math.random(one_in) == 1 then looked[#looked + 1] = id end
    return wrk.format("GET", "/v1/orders/" .. id, with({}))
  end
  has_looked = not has_looked
  if has_looked then return wrk.format("GET", "/v1/availability?sku=" .. sku, with({})) end
  return order()
end

function response(status, _, answer)
  statuses[status] = (statuses[status] or 0) + 1
  if status == 201 then placed[#placed + 1] = answer:sub(ID_FROM, ID_TO) end
end

function done()
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + count end
  end
  for status, count in pairs(all) do print(string.format("HTTP %d: %d", status, count)) end
end
