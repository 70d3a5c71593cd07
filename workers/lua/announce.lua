-- An asset without an open job (its field `open` counts them) is kept as long as the record of its last job.
local function leave(asset, keep_s)
  if tonumber(redis.call('HGET', asset, 'open') or 0) > 0 then return end
  redis.call('EXPIRE', asset, keep_s)
  redis.call('EXPIRE', asset .. ':jobs', keep_s)
end

-- A new asset record starts an epoch that no earlier one had: Redis's seconds at its creation.
local function born(asset) redis.call('HSETNX', asset, 'epoch', redis.call('TIME')[1]) end

-- Change the asset's document and append events, each sealed with the asset's next sequence (pipeline.events.seal).
local function announce(asset, stream, max_events, document, events)
  if not document and #events == 0 then return end
  born(asset)
  if document then
    redis.call('HSET', asset, 'document', document)
    redis.call('HINCRBY', asset, 'version', 1)
  end
  local epoch = redis.call('HGET', asset, 'epoch')
  for _, event in ipairs(events) do
    local sequence = string.format('%020d', redis.call('HINCRBY', asset, 'sequence', 1))
    local sealed = '{"sequence":"' .. sequence .. '","epoch":' .. epoch .. ',' .. string.sub(event.body, 2)
    redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*',
      'ce', sealed, 'type', event.type, 'subject', event.subject, 'sequence', sequence)
  end
end
