-- Sends the requests of a file, one after the other and again from the first, as they stand in it. Arguments: the
-- file, the mean milliseconds that a connection thinks between two requests (0 for none), and the seconds at the
-- beginning, while connections are opened, that do not count. A request is generated when the answer before it is there.
-- The file: for each request four bytes of length, most significant first, then its bytes, head and body.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } cloister_time; int clock_gettime(int, cloister_time *);")
local requests, at, threads, time, begun, warm = {}, 0, {}, ffi.new("cloister_time"), nil, 0
counted, looked = 0, false

local function now()
   ffi.C.clock_gettime(1, time)
   return tonumber(time.s) + tonumber(time.ns) / 1e9
end

function setup(thread) table.insert(threads, thread) end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   while true do
      local head = file:read(4)
      if not head then break end
      local a, b, c, d = head:byte(1, 4)
      requests[#requests + 1] = file:read(((a * 256 + b) * 256 + c) * 256 + d)
   end
   file:close()
   local mean = tonumber(args[2])
   warm = tonumber(args[3])
   if mean > 0 then
      math.randomseed(1)
      -- exponential, so that many connections together come as independent strangers do
      function delay() return -mean * math.log(1 - math.random()) end
   end
end

function request()
   at = at % #requests + 1
   if looked then
      local moment = now()
      begun = begun or moment
      if moment >= begun + warm then counted = counted + 1 end
   end
   looked = true  -- wrk looks at the first before it begins
   return requests[at]
end

function done(summary, latency, _)
   local errors = summary.errors
   local one = threads[1]
   io.write(string.format(
      '\n@{"counted":%d,"requests":%d,"us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p90":%d,"p99":%d}\n',
      one:get("counted"), summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status,
      errors.timeout, latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
