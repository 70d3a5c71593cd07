"""The error catalogue: everything that can go wrong has a code, one sentence and what to do next.

A code is a stable name. It stands in the event, in the log line, as a metric label and on the command line. Whether a
failed step is tried again is a property of the code, never of the place that caught it. Codes and value names are those
of the reference APIs where they have one; ours stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

Value = str | int | float


@dataclass(frozen=True, kw_only=True)
class ErrorSpec:
    """One row of the catalogue."""

    code: str
    message: str
    """One sentence for a person, with `{names}` of the values that come with the error."""
    hint: str
    """What to do next."""
    retryable: bool = False
    """True: the cause may pass, so the step backs off and tries again."""

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that come with the error; others may come too."""
        named = (name for text in (self.message, self.hint) for _, name, _, _ in Formatter().parse(text) if name)
        return tuple(dict.fromkeys(named))


def _catalogue(*specs: ErrorSpec) -> dict[str, ErrorSpec]:
    return {spec.code: spec for spec in specs}


CATALOGUE: Mapping[str, ErrorSpec] = _catalogue(
    # -- the source ---------------------------------------------------------------------------------------------------
    ErrorSpec(
        code="media_url_not_accessible",
        message="The source {url} cannot be read ({reason}).",
        hint="Check that the file exists, is a regular file and may be read from here, without signing in.",
    ),
    ErrorSpec(
        code="source_forbidden",
        message="The source {url} may not be read: {reason}.",
        hint="Send an http(s) URL of a public host. What else may be read say the workers' settings: "
        "REELWAY_SOURCE_ALLOW (hosts and networks), REELWAY_SOURCE_PORTS, REELWAY_SOURCE_BUCKETS.",
    ),
    ErrorSpec(
        code="source_unavailable",
        message="The source {url} cannot be read at the moment ({reason}).",
        hint="The step tries again by itself. If this goes on, ask who runs that server.",
        retryable=True,
    ),
    ErrorSpec(
        code="source_changed",
        message="The source {url} changed while it was read.",
        hint="The step begins anew by itself. Send a URL whose file stays as it is.",
        retryable=True,
    ),
    ErrorSpec(
        code="source_seal_broken",
        message="The sealed URL of the source of asset {asset} cannot be opened: {reason}.",
        hint="Give every worker the same REELWAY_SEAL_KEY (or none), with the keys of before after a comma, and keep "
        "private/seal.key in the storage; then retry the asset, or send the request again under a new asset id.",
        # Another worker may have the key.
        retryable=True,
    ),
    ErrorSpec(
        code="source_too_slow",
        message="The source {url} came too slowly: less than {minimum_rate} bytes a second for {seconds} s.",
        hint="The step tries again by itself. Put the file on a faster server if this goes on.",
        retryable=True,
    ),
    ErrorSpec(
        code="media_url_unsupported_format",
        message="The source is no video or audio that is taken here (detected: {detected_format}).",
        hint="Send {wanted}.",
    ),
    ErrorSpec(
        code="media_url_file_broken",
        message="The source is broken: {reason}.",
        hint="Upload the file again; compare its size with the original.",
    ),
    ErrorSpec(
        code="media_filesize_too_large",
        message="The source has {current_size} bytes; at most {maximum_size} are accepted.",
        hint="Send a smaller file or raise the size limit.",
    ),
    ErrorSpec(
        code="source_differs",
        message="Another file than {url} is stored as the source of asset {asset}.",
        hint="Send the request under a new asset id; what is stored stays as it is.",
    ),
    ErrorSpec(
        code="video_file_broken",
        message="The picture of the source cannot be decoded.",
        hint="Play the file locally; export it again if it does not play.",
    ),
    ErrorSpec(
        code="video_file_live",
        message="The source is a live stream ({reason}).",
        hint="Send a recording, or the finished file.",
    ),
    ErrorSpec(
        code="video_resolution_too_low",
        message="The picture is {current_resolution}; {minimum_resolution} to {maximum_resolution} is accepted.",
        hint="Send a larger picture.",
    ),
    ErrorSpec(
        code="video_resolution_too_high",
        message="The picture is {current_resolution}; {minimum_resolution} to {maximum_resolution} is accepted.",
        hint="Send a smaller picture or raise the limit.",
    ),
    ErrorSpec(
        code="video_resolution_invalid_aspect_ratio",
        message="The picture is {current_resolution}; one side may be at most {maximum_aspect_ratio} times the other.",
        hint="Crop or pad the picture.",
    ),
    ErrorSpec(
        code="video_duration_too_short",
        message="The video lasts {current_duration} s; at least {minimum_duration} s are needed.",
        hint="Send a longer video.",
    ),
    ErrorSpec(
        code="video_duration_too_long",
        message="The video lasts {current_duration} s; {minimum_duration} to {maximum_duration} s are accepted.",
        hint="Send a shorter video or raise the limit.",
    ),
    ErrorSpec(
        code="video_filesize_too_large",
        message="The video has {current_size} bytes; at most {maximum_size} are accepted.",
        hint="Send a smaller file or raise the size limit.",
    ),
    ErrorSpec(
        code="audio_filesize_too_large",
        message="The sound has {current_size} bytes; at most {maximum_size} are accepted.",
        hint="Send a smaller file or raise the size limit.",
    ),
    ErrorSpec(
        code="audio_file_broken",
        message="The sound of the source cannot be decoded.",
        hint="Play the file locally; export it again if it does not play.",
    ),
    ErrorSpec(
        code="audio_format_unsupported",
        message="The sound format {format} is not supported.",
        hint="Send one of: {supported_formats}.",
    ),
    ErrorSpec(
        code="audio_duration_too_short",
        message="The sound lasts {current_duration} s; at least {minimum_duration} s are needed.",
        hint="Send a longer recording.",
    ),
    ErrorSpec(
        code="audio_duration_too_long",
        message="The sound lasts {current_duration} s; {minimum_duration} to {maximum_duration} s are accepted.",
        hint="Send a shorter recording or raise the limit.",
    ),
    # -- uploads ------------------------------------------------------------------------------------------------------
    ErrorSpec(
        code="upload_not_found",
        message="No upload {upload} is under way or complete.",
        hint="Start a new one: it was cancelled, has expired, its asset was deleted, it never was, or is another's.",
    ),
    ErrorSpec(
        code="upload_incomplete",
        message="Of the upload {upload} {missing} parts are missing ({parts}).",
        hint="Ask for its parts: each missing one comes with a fresh URL. Send them and complete it again.",
    ),
    ErrorSpec(
        code="upload_part_differs",
        message="Part {part} of the upload {upload} is not the one that was meant: {detail}.",
        hint="Ask for its parts, send this one again, and use the ETag of the answer.",
    ),
    ErrorSpec(
        code="upload_completed",
        message="The upload {upload} is complete.",
        hint="Its parts are one object. To undo it, cancel the job of asset {asset} or delete the asset.",
    ),
    ErrorSpec(
        code="upload_wrong_format",
        message="The upload is no {relationship} that can be used.",
        hint="Send one of: {supported_formats}.",
    ),
    # -- the request --------------------------------------------------------------------------------------------------
    ErrorSpec(
        code="parameter_invalid",
        message="The request is not valid: {detail}.",
        hint="Correct the named field and send the request again.",
    ),
    ErrorSpec(
        code="parameter_not_provided",
        message="The request lacks {parameter}.",
        hint="Add the field and send the request again.",
    ),
    ErrorSpec(
        code="job_not_found",
        message="There is no such job: {job}.",
        hint="`reelway history ID` shows the jobs of an asset, `reelway dead ls` the failed ones.",
    ),
    ErrorSpec(
        code="cursor_expired",
        message="The events from {cursor} on are not kept any more; the oldest that is kept is of {oldest}.",
        hint="Read what you need from the assets themselves, then go on from a moment that is kept.",
    ),
    ErrorSpec(
        code="request_failed",
        message="The request could not be handled ({reason}).",
        hint="This is a bug: report it with the log of the worker. Sending it again with the same id is safe.",
    ),
    ErrorSpec(
        code="request_unanswered",
        message="No worker took the request {request} within {seconds} s.",
        hint="It waits on the stream and is taken as soon as a worker runs. Sending it again with the same id is safe.",
        retryable=True,
    ),
    ErrorSpec(
        code="profile_unknown",
        message="There is no profile {profile}.",
        hint="Use one of: {available}.",
    ),
    ErrorSpec(
        code="asset_not_found",
        message="There is no asset {asset}.",
        hint="Check the id. What a folder of this machine holds is shown by `reelway ls --out DIR`.",
    ),
    ErrorSpec(
        code="asset_exists",
        message="There is an asset {asset} already.",
        hint="Leave out the asset id, or bring another; `reelway reprocess` changes an asset that is there.",
    ),
    ErrorSpec(
        code="asset_not_ready",
        message="Asset {asset} is not ready: {detail}.",
        hint="Wait for `asset.ready`; if that does not come, process the source under a new id.",
    ),
    ErrorSpec(
        code="cut_needs_source",
        message="Asset {asset} cannot be cut there: frames have to be encoded from its source, which is gone.",
        hint="Cut at keyframes, which needs no source: {inside}.",
    ),
    ErrorSpec(
        code="asset_deleted",
        message="Asset {asset} is deleted, or about to be.",
        hint="Process the source under a new id.",
    ),
    ErrorSpec(
        code="nothing_to_retry",
        message="The last job of asset {asset} is {status}; what failed or was cancelled can be tried again.",
        hint="Wait for its end; `reelway reprocess` changes an asset that is ready.",
    ),
    ErrorSpec(
        code="priority_not_allowed",
        message="The organization {organization} may not ask for the priority {priority}.",
        hint="Use one of: {allowed}.",
    ),
    ErrorSpec(
        code="quota_exceeded",
        message="The organization {organization} has {maximum} jobs that have not ended, and may have no more.",
        hint="Send the request again in {retry_after_s} s or later, or raise its `max_open_jobs`.",
        retryable=True,
    ),
    ErrorSpec(
        code="queue_full",
        message="The memory of Redis is nearly used up ({percent} %).",
        hint="Send the request again in {retry_after_s} s or later; give Redis more memory if this lasts.",
        retryable=True,
    ),
    ErrorSpec(
        code="asset_busy",
        message="Asset {asset} is busy: {detail}.",
        hint="Wait for the job to end, then ask again.",
    ),
    ErrorSpec(
        code="trim_range_invalid",
        message="{field} is {current}: choose {minimum} to {maximum} (seconds).",
        hint="Times count on the whole video, also when it is trimmed; at least one frame has to lie between them.",
    ),
    ErrorSpec(
        code="not_trimmed",
        message="Nothing of asset {asset} is trimmed away: there is nothing to revert.",
        hint="`reelway versions ID` shows what can be gone back to.",
    ),
    ErrorSpec(
        code="version_not_found",
        message="Asset {asset} has no version {version} that can be gone back to; the latest is {latest}.",
        hint="Choose one that `reelway versions ID` shows.",
    ),
    ErrorSpec(
        code="export_track_not_found",
        message="Asset {asset} has no {field} {current} to export.",
        hint="Choose one of: {available}.",
    ),
    ErrorSpec(
        code="setting_invalid",
        message="The setting {name} is not valid: {detail}.",
        hint="Correct the variable; config/README.md lists every setting.",
    ),
    ErrorSpec(
        code="storage_differs",
        message="The workers of this Redis store in {theirs}, this one would in {ours}.",
        hint="Give it their REELWAY_STORAGE_URL, or another Redis in REELWAY_REDIS_URL; or stop them first (who was "
        "killed is forgotten after {seconds} s).",
    ),
    # -- the work -----------------------------------------------------------------------------------------------------
    ErrorSpec(
        code="cancelled",
        message="The job was cancelled.",
        hint="Send the request again if the asset is wanted after all.",
    ),
    ErrorSpec(
        code="worker_lost",
        message="The worker was lost while it did {step} (losses: {losses}).",
        hint="The file may be too large for the machine or crash it: look at the worker's memory and its log.",
    ),
    ErrorSpec(
        code="stage_crashed",
        message="The {stage} process ended by itself ({reason}).",
        hint="The file may be damaged in a way that crashes the decoder; export it again.",
    ),
    ErrorSpec(
        code="stage_interrupted",
        message="The {stage} process was killed from outside.",
        hint="The step tries again by itself. If this goes on, the machine is short of memory: look into its log.",
        retryable=True,
    ),
    ErrorSpec(
        code="stage_out_of_memory",
        message="The {stage} process needed more than the {limit_bytes} bytes of memory that it may use.",
        hint="Raise the memory limit, or send a smaller picture.",
    ),
    ErrorSpec(
        code="stage_out_of_time",
        message="The {stage} process needed more than the {limit_s} s of processor time that it may use.",
        hint="Raise REELWAY_CPU_LIMIT_S, or send a shorter file; one that is short may be made to waste time.",
    ),
    ErrorSpec(
        code="stage_failed",
        message="The {stage} stage met an error that it does not know ({reason}).",
        hint="This is a bug: report it with the log of this step.",
    ),
    ErrorSpec(
        code="stalled",
        message="The {stage} stage made no progress for {seconds} s.",
        hint="The file may be damaged; export it again.",
        retryable=True,
    ),
    ErrorSpec(
        code="timed_out",
        message="The {stage} stage took longer than {seconds} s.",
        hint="Raise the time limit, or send a shorter file.",
    ),
    ErrorSpec(
        code="encoder_mismatch",
        message="The parts of {track} do not fit together: they were made by different encoders.",
        hint="Run one version of the workers, then retry the job.",
    ),
    ErrorSpec(
        code="encoder_unavailable",
        message="No worker has had the encoder that this job began with ({encoder}) for {seconds} s.",
        hint="Run `reelway retry ID`: the asset is made with the encoder of today's workers.",
    ),
    ErrorSpec(
        code="parts_incomplete",
        message="The parts of {track} do not cover the asset: {detail}.",
        hint="This is a bug: report it with the log of this job.",
    ),
    ErrorSpec(
        code="edit_changed",
        message="What is played of asset {asset} changed meanwhile: its edit knows nothing of {track}.",
        hint="Nothing: the step tries again by itself, on top of what is there now.",
        retryable=True,
    ),
    ErrorSpec(
        code="schema_newer",
        message="The {what} has the form {found}, newer than the form {known} that this worker knows.",
        hint="Update this worker; the step tries again by itself and waits for one that can read it.",
        retryable=True,
    ),
    ErrorSpec(
        code="speech_model_missing",
        message="The speech model {model} is not on this worker, or cannot be loaded.",
        hint="Install `reelway[speech]` for tiny.en; or run `hf download Systran/faster-whisper-small` on the worker "
        "and set REELWAY_SPEECH_MODEL=small; or set it to the folder of a CTranslate2 Whisper model.",
    ),
    ErrorSpec(
        code="speech_language_unsupported",
        message="The speech model {model} does not understand the language {language}.",
        hint="Name a multilingual model in REELWAY_SPEECH_MODEL (`small`, `large-v3`), or correct the language.",
    ),
    ErrorSpec(
        code="export_not_possible",
        message="What is played of asset {asset} cannot be exported as one file: {detail}.",
        hint="Revert the trim (`reelway revert ID`), or process the asset again; then export it.",
    ),
    # -- the world around ---------------------------------------------------------------------------------------------
    ErrorSpec(
        code="source_archived",
        message="The object {key} lies in a cold storage class ({storage_class}) and cannot be read.",
        hint="Restore it in the storage, then retry the job.",
    ),
    ErrorSpec(
        code="storage_unavailable",
        message="The storage does not answer ({reason}).",
        hint="The step tries again by itself; check the storage if this goes on.",
        retryable=True,
    ),
    ErrorSpec(
        code="storage_full",
        message="There is no space left on {where}.",
        hint="Free some space; the step tries again by itself.",
        retryable=True,
    ),
    ErrorSpec(
        code="storage_forbidden",
        message="The storage refuses access ({reason}).",
        hint="Check the credentials and the permissions of the bucket or folder.",
    ),
    ErrorSpec(
        code="address_taken",
        message="Something that is not Redis listens at {address}.",
        hint="Stop it, or name another address in REELWAY_REDIS_URL.",
    ),
    ErrorSpec(
        code="workers_unavailable",
        message="No worker of this command keeps running ({reason}).",
        hint="Run `reelway doctor`; check memory and the REELWAY_ variables.",
    ),
    ErrorSpec(
        code="queue_unavailable",
        message="Redis does not answer ({reason}).",
        hint="Check that Redis runs and can be reached; `reelway doctor` says more.",
        retryable=True,
    ),
)


class PipelineError(Exception):
    """An error of the catalogue, with its values.

    `params` fill the names in the message; a name without a value prints as `?`. `log` is for the log only and never
    leaves the machine.
    """

    unwritten = False
    """The attempt that met it has written nothing that the public sees, and will not, whatever it had announced."""

    def __init__(self, code: str, *, log: str | None = None, **params: Value) -> None:
        self.spec = CATALOGUE[code]
        self.params = params
        self.log = log
        super().__init__(f"{code}: {self.message}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.code, self.log, self.params))

    @property
    def code(self) -> str:
        return self.spec.code

    @property
    def retryable(self) -> bool:
        return self.spec.retryable

    @property
    def message(self) -> str:
        return self.spec.message.format_map(_Known(self.params))

    @property
    def hint(self) -> str:
        return self.spec.hint.format_map(_Known(self.params))

    def document(self) -> dict[str, object]:
        """The body that events, documents and `--json` carry: `{code, message, params, hint, retryable}`."""
        return {
            "code": self.code,
            "message": self.message,
            "params": dict(self.params),
            "hint": self.hint,
            "retryable": self.retryable,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> PipelineError:
        params = document.get("params")
        return cls(str(document["code"]), **(params if isinstance(params, dict) else {}))


class _Known(dict[str, Value]):
    def __missing__(self, key: str) -> str:
        return "?"


def _rebuild(code: str, log: str | None, params: dict[str, Value]) -> PipelineError:
    return PipelineError(code, log=log, **params)
