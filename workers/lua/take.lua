-- Take what may begin next, high priorities of all stages before low ones of any, because a quota is for all stages.
-- The readable form of this is ReadyIndex.take in pipeline/ready.py.
--
-- ARGV: prefix, the wish as JSON: stages, rooms (how many of each), priorities (highest first), quotas (by
-- organization), default (the quota of the others); a quota below zero is none
-- Returns member, stage, member, stage …
local agenda = agenda(ARGV[1])
local ready = agenda.figures()
if next(ready) == nil then return {} end -- the usual case: one look, and nothing is written

local wish = cjson.decode(ARGV[2])
local taken = {}

local function under_quota(organization)
  local quota = wish.quotas[organization] or wish.default
  return quota < 0 or agenda.taken_by(organization) < quota
end

-- Round after round, one step for each organization that has one and is under its quota; returns the room left.
local function serve(stage, priority, room)
  local waiting = agenda.in_turn(stage, priority)
  while #waiting > 0 do
    local again = {}
    for _, organization in ipairs(waiting) do
      if room <= 0 then return room end
      if under_quota(organization) then
        local member, more = agenda.first(stage .. '|' .. priority .. '|' .. organization)
        if member then
          room = room - 1
          taken[#taken + 1] = member
          taken[#taken + 1] = stage
        end
        if more then again[#again + 1] = organization end
      end
    end
    waiting = again
  end
  return room
end

local rooms = {}
for i, stage in ipairs(wish.stages) do rooms[i] = agenda.is_paused(stage) and 0 or wish.rooms[i] end
for _, priority in ipairs(wish.priorities) do
  for i, stage in ipairs(wish.stages) do
    if rooms[i] > 0 and ready[stage .. '|' .. priority] then rooms[i] = serve(stage, priority, rooms[i]) end
  end
end
return taken
