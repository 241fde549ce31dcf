-- Sends ready-made requests in their order, over and over: wrk -s replay.lua URL -- FILE. A NUL ends each request of the file.
-- The results are one line of JSON on standard error. Latencies are in microseconds, as wrk corrects them for coordinated omission.
local requests, at = {}, 0

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    for request in file:read("*a"):gmatch("([^%z]+)%z") do
        requests[#requests + 1] = request
    end
    file:close()
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency)
    local errors = summary.errors
    io.stderr:write(string.format(
        '{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50": %d, "p95": %d, "p99": %d}\n',
        summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
