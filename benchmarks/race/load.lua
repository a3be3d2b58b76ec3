-- Sends the requests of a file, one after the other and again from the first, as they stand in it. Arguments: the
-- file, and the mean milliseconds that a connection thinks between two requests (0 for none).
-- The file: for each request four bytes of length, most significant first, then its bytes, head and body.
local requests, at = {}, 0

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
   if mean > 0 then
      math.randomseed(1)
      -- exponential, so that many connections together come as independent strangers do
      function delay() return -mean * math.log(1 - math.random()) end
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      '\n@{"requests":%d,"us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p90":%d,"p99":%d}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status,
      errors.timeout, latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
