-- What may begin, and in whose turn: the ready index. The readable form of this is ReadyIndex in pipeline/ready.py.
--
-- A step (a member `<job>/<step>`) stands in one place at most, and the hash of places says where:
-- `ready|<spot>` (in its queue), `out|<spot>` (taken), or nowhere. A spot is `<stage>|<priority>|<organization>`.
-- So a step leaves its place, and is not counted any more, whoever tells, and whatever its record says meanwhile.
local function agenda(prefix)
  local here = {}
  local places, ready, out = prefix .. ':places', prefix .. ':ready', prefix .. ':out'

  local function parts(spot) return string.match(spot, '^([^|]*)|([^|]*)|([^|]*)$') end
  local function queue(spot) return prefix .. ':ready:' .. spot end
  local function turns(stage, priority) return prefix .. ':turns:' .. stage .. '|' .. priority end
  local function empty(spot) return redis.call('EXISTS', queue(spot)) == 0 end

  local function count(key, field, by)
    if redis.call('HINCRBY', key, field, by) <= 0 then redis.call('HDEL', key, field) end
  end
  local function count_ready(spot, by)
    local stage, priority = parts(spot)
    count(ready, stage .. '|' .. priority, by)
  end
  local function count_out(spot, by)
    local stage, _, organization = parts(spot)
    count(out, 'stage|' .. stage, by)
    count(out, 'organization|' .. organization, by)
  end

  local function give_turn(spot)
    local stage, priority, organization = parts(spot)
    redis.call('ZADD', turns(stage, priority), redis.call('INCR', prefix .. ':turn'), organization)
  end
  local function end_turn(spot)
    local stage, priority, organization = parts(spot)
    redis.call('ZREM', turns(stage, priority), organization)
  end

  -- It stands nowhere any more.
  function here.leave(member)
    local place = redis.call('HGET', places, member)
    if not place then return end
    redis.call('HDEL', places, member)
    local kind, spot = string.match(place, '^(%a+)|(.*)$')
    if kind == 'out' then return count_out(spot, -1) end
    redis.call('ZREM', queue(spot), member)
    count_ready(spot, -1)
    if empty(spot) then end_turn(spot) end
  end

  -- It may begin; true if it did not stand there already. An organization that had nothing ready comes last.
  function here.stand(member, spot, rank)
    local moved = redis.call('HGET', places, member) ~= 'ready|' .. spot
    if moved then
      here.leave(member)
      if empty(spot) then give_turn(spot) end
      redis.call('HSET', places, member, 'ready|' .. spot)
      count_ready(spot, 1)
    end
    redis.call('ZADD', queue(spot), rank, member)
    return moved
  end

  -- It is out: it was taken, or began by a ticket that had been given up as lost.
  function here.begin(member, spot)
    if redis.call('HGET', places, member) == 'out|' .. spot then return end
    here.leave(member)
    redis.call('HSET', places, member, 'out|' .. spot)
    count_out(spot, 1)
  end

  -- Another priority for a step that is ready; one that is out is out.
  function here.promote(member, priority, rank)
    local place = redis.call('HGET', places, member)
    local stage, _, organization = string.match(place or '', '^ready|([^|]*)|([^|]*)|([^|]*)$')
    if stage then here.stand(member, stage .. '|' .. priority .. '|' .. organization, rank) end
  end

  -- Take the first step of a spot's queue; its organization goes to the end of the line. True if it has more.
  -- Nothing where the queue is gone: somebody removed keys by hand, and that must not stop all the others.
  function here.first(spot)
    local member = redis.call('ZRANGE', queue(spot), 0, 0)[1]
    if not member then
      end_turn(spot)
      return nil, false
    end
    here.begin(member, spot)
    if empty(spot) then return member, false end
    give_turn(spot)
    return member, true
  end

  -- Organizations with something ready, by when their turn comes.
  function here.in_turn(stage, priority) return redis.call('ZRANGE', turns(stage, priority), 0, -1) end

  -- How many steps are ready, by `<stage>|<priority>`.
  function here.figures()
    local figures, all = {}, redis.call('HGETALL', ready)
    for i = 1, #all, 2 do figures[all[i]] = tonumber(all[i + 1]) end
    return figures
  end

  function here.taken_by(organization)
    return tonumber(redis.call('HGET', out, 'organization|' .. organization) or 0)
  end
  function here.is_paused(stage) return redis.call('SISMEMBER', prefix .. ':paused', stage) == 1 end
  return here
end
