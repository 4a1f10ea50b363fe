"""What an application does with Python's official client: `python scenarios.py SCENARIO`, or `--list`.

Only the client and assert are used. The context is in CONTEXT as JSON.
"""

import json
import os
import re
import sys
import time
import urllib.request

import openai

ANSWER = "你好 😀 Grüße"
TERMINAL = ("succeeded", "failed", "cancelled")


class Context:
    def __init__(self, baseURL, apiKey, model, name):
        self.base_url, self.api_key, self.model, self.name = baseURL, apiKey, model, name
        self.client = self.connect()

    def connect(self, **options):
        return openai.OpenAI(**{"base_url": self.base_url, "api_key": self.api_key, **options})


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def chat_rows(count, answer=lambda i: f"A cat has {i} toys."):
    return [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about cat {i}."},
                {"role": "assistant", "content": answer(i)},
            ]
        }
        for i in range(count)
    ]


def upload(context, rows):
    return context.client.files.create(file=("rows.jsonl", jsonl(rows)), purpose="fine-tune").id


def ended(context, job_id):
    deadline = time.time() + 300
    while time.time() < deadline:
        job = context.client.fine_tuning.jobs.retrieve(job_id)
        if job.status in TERMINAL:
            return job
        time.sleep(0.25)
    raise AssertionError(f"The job {job_id} has not ended within five minutes.")


def start_job(context, rows, n_epochs, purpose):
    return context.client.fine_tuning.jobs.create(
        model=context.model,
        training_file=upload(context, rows),
        seed=7,
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": n_epochs,
                    "batch_size": 4,
                    "learning_rate_multiplier": 1,
                }
            },
        },
        metadata={"client": context.name, "purpose": purpose},
    )


def succeeded_job(context, purpose, rows, n_epochs):
    """A succeeded job of this client for `purpose`; made when there is none yet."""
    query = {"metadata[client]": context.name, "metadata[purpose]": purpose}
    for job in context.client.fine_tuning.jobs.list(extra_query=query):
        if job.status == "succeeded":
            return job
    job = ended(context, start_job(context, rows, n_epochs, purpose).id)
    assert job.status == "succeeded", job.error
    return job


def plain_job(context):
    return succeeded_job(context, "plain", chat_rows(12), 2)


def refused(asked, error_class, **expected):
    """Awaits an error of exactly this class and checks what the client could parse of it."""
    try:
        asked()
    except openai.APIStatusError as error:
        assert type(error) is error_class, repr(error)
        assert error.type == "invalid_request_error", error.type
        for key, value in expected.items():
            assert getattr(error, key) == value, (key, getattr(error, key), value)
        assert error.request_id
        return
    raise AssertionError("The request was not refused.")


def failed_job(context, rows, validation=None):
    files = {"training_file": upload(context, rows)}
    if validation is not None:
        files["validation_file"] = upload(context, validation)
    job = ended(context, context.client.fine_tuning.jobs.create(model=context.model, **files).id)
    assert job.status == "failed" and job.error is not None and job.finished_at is not None
    events = context.client.fine_tuning.jobs.list_events(job.id)
    event = next(event for event in events if event.level == "error")
    assert event.message == job.error.message
    return job.error, event.data


def a_file_becomes_a_job_becomes_a_model_that_answers(context):
    client = context.client
    file = client.files.create(file=("rows.jsonl", jsonl(chat_rows(12))), purpose="fine-tune")
    assert client.files.wait_for_processing(file.id).status == "processed"
    created = client.fine_tuning.jobs.create(
        model=context.model,
        training_file=file.id,
        suffix="e2e",
        seed=7,
        hyperparameters={"n_epochs": 1},
    )
    assert created.status == "validating_files"
    job = ended(context, created.id)
    assert job.status == "succeeded", job.error
    assert re.fullmatch(r"ft:[^:]+:[^:]+:e2e:[A-Za-z0-9]{8}", job.fine_tuned_model)
    assert job.hyperparameters.n_epochs == 1 and job.trained_tokens > 0
    answer = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "Tell me about cat 3."}],
        max_tokens=16,
        temperature=0,
    )
    assert answer.model == job.fine_tuned_model and answer.choices[0].message.content
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def events_are_walked_once_newest_first_none_lost(context):
    client = context.client
    job_id = start_job(context, chat_rows(12), 10, "events").id
    before, messages, running = [], [], True

    def walk():
        nonlocal before, messages
        events = list(client.fine_tuning.jobs.list_events(job_id, limit=2))
        ids = [event.id for event in events]
        assert len(set(ids)) == len(ids), "an event came twice"
        assert ids[len(ids) - len(before) :] == before, "an older event was lost"
        before, messages = ids, [event.message for event in reversed(events)]

    while running:
        running = client.fine_tuning.jobs.retrieve(job_id).status not in TERMINAL
        walk()
    walk()
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.status == "succeeded", job.error
    assert messages[0] == f"Created fine-tuning job: {job_id}"
    assert messages[-1] == "The job has successfully completed"
    steps = [m for m in messages if re.match(r"Step \d+/30: training loss=\d+\.\d\d", m)]
    assert [int(re.search(r"\d+", m)[0]) for m in steps] == list(range(1, 31))


def every_refusal_is_the_right_class(context):
    client = context.client
    messages = [{"role": "user", "content": "Hello"}]
    training_file = upload(context, chat_rows(12))
    wrong = context.connect(api_key="sk-wrong")
    jobs = client.fine_tuning.jobs
    chat = client.chat.completions.create
    refused(lambda: wrong.models.list(), openai.AuthenticationError, code="invalid_api_key")
    refused(
        lambda: chat(model="gpt-none", messages=messages),
        openai.NotFoundError,
        code="model_not_found",
    )
    refused(lambda: client.files.retrieve("file-none"), openai.NotFoundError, code=None)
    refused(lambda: jobs.retrieve("ftjob-none"), openai.NotFoundError)
    refused(
        lambda: chat(model=context.model, messages=messages, temperature=3),
        openai.BadRequestError,
        param="temperature",
    )
    refused(
        lambda: jobs.create(
            model=context.model,
            training_file=training_file,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}},
        ),
        openai.BadRequestError,
        param="method.supervised.hyperparameters.n_epochs",
    )
    refused(
        lambda: jobs.create(
            model=context.model, training_file=training_file, extra_body={"n_epoch": 3}
        ),
        openai.BadRequestError,
        param="n_epoch",
        code="unknown_parameter",
    )


def cancelling_a_finished_job_is_refused_without_a_retry(context):
    job = plain_job(context)
    requests = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [requests.append]})
    client = context.connect(http_client=http)
    refused(lambda: client.fine_tuning.jobs.cancel(job.id), openai.BadRequestError)
    assert len(requests) == 1, requests


def a_key_used_twice_is_one_job(context):
    training_file = upload(context, chat_rows(12))
    headers = {"Idempotency-Key": f"once-{training_file}"}

    def create(**more):
        return context.client.fine_tuning.jobs.create(
            model=context.model, training_file=training_file, extra_headers=headers, **more
        )

    first, second = create(), create()
    assert first.id == second.id
    refused(lambda: create(seed=1), openai.BadRequestError, code="idempotency_key_reused")


def a_paused_job_ends_with_the_weights_of_an_undisturbed_one(context):
    jobs = context.client.fine_tuning.jobs
    undisturbed = ended(context, start_job(context, chat_rows(24), 10, "pause").id)
    assert undisturbed.status == "succeeded", undisturbed.error
    job_id = start_job(context, chat_rows(24), 10, "pause").id
    while jobs.retrieve(job_id).estimated_finish is None:
        time.sleep(0.02)
    assert jobs.pause(job_id).status == "paused"
    refused(lambda: jobs.pause(job_id), openai.BadRequestError, code="invalid_job_state")
    checkpoint = jobs.checkpoints.list(job_id).data[0]
    assert checkpoint.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{checkpoint.step_number}")
    assert jobs.resume(job_id).status == "queued"
    job = ended(context, job_id)
    assert job.status == "succeeded", job.error

    def result(of):
        return context.client.files.content(of.result_files[0]).read()

    assert result(job) == result(undisturbed)


def a_stream_says_its_usage_and_its_deltas_are_the_text(context):
    request = dict(
        model=context.model,
        messages=[{"role": "user", "content": "Once upon a time"}],
        max_tokens=40,
        temperature=0,
    )
    whole = context.client.chat.completions.create(**request)
    text, usage = "", None
    for chunk in context.client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ):
        if chunk.usage:
            assert chunk.choices == []
            usage = chunk.usage
        else:
            text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content
    assert usage.completion_tokens == whole.usage.completion_tokens


def a_stream_never_cuts_a_character_in_two(context):
    job = succeeded_job(context, "unicode", chat_rows(12, lambda i: ANSWER), 30)
    request = dict(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "Tell me about cat 3."}],
        max_tokens=32,
        temperature=0,
    )
    create = context.client.chat.completions.create
    whole = create(**request).choices[0].message.content
    assert re.search("[^\x00-\x7f\ufffd]", whole), whole
    # A code point that was cut would read as replacement characters, which the whole text has not.
    deltas = [chunk.choices[0].delta.content or "" for chunk in create(**request, stream=True)]
    assert "".join(deltas) == whole, deltas


def a_client_that_goes_away_frees_its_place(context):
    client = context.connect(max_retries=0)
    messages = [{"role": "user", "content": "Once upon a time"}]
    streams = [
        client.chat.completions.create(
            model=context.model,
            messages=messages,
            n=128,
            max_tokens=450,
            temperature=1,
            seed=seed,
            stream=True,
        )
        for seed in (1, 2)
    ]
    try:
        client.chat.completions.create(model=context.model, messages=messages, max_tokens=1)
        raise AssertionError("The project had room.")
    except openai.RateLimitError:
        pass
    for stream in streams:
        stream.close()
    deadline = time.time() + 5
    while True:
        try:
            client.chat.completions.create(model=context.model, messages=messages, max_tokens=1)
            return
        except openai.RateLimitError as error:
            assert time.time() < deadline, repr(error)
            time.sleep(0.05)


def the_result_file_has_a_row_for_every_step(context):
    job = plain_job(context)
    csv = context.client.files.content(job.result_files[0]).text
    head, *rows = csv.rstrip("\n").split("\n")
    assert head == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]


def bad_rows_fail_the_job_in_the_known_words(context):
    rows = chat_rows(12)
    for i in (4, 9):
        rows[i] = {"messages": [{"role": "user", "content": "x"}, {"content": "y"}]}
    error, data = failed_job(context, rows)
    failed = "The job failed due to an invalid training file. "
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert error.message == failed + (
        "Invalid file format. Example 5, message 2 Discriminator 'role' is missing in value"
    )
    assert sorted({row["line"] for row in data["errors"]}) == [5, 10]

    error, _ = failed_job(context, [{"question": "q", "answer": "a"}] * 12)
    assert error.message == failed + (
        "unexpected file format, expected either prompt/completion pairs or chat messages."
    )

    error, _ = failed_job(context, chat_rows(7))
    assert (error.code, error.param) == ("invalid_n_examples", "training_file")
    assert error.message == "Training file has 7 example(s), but must have at least 10 examples"

    error, _ = failed_job(context, chat_rows(12), [{"messages": [{"content": "no role"}]}])
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")


def a_tuned_model_is_found_with_colons_and_deleted(context):
    client = context.client
    name = ended(context, start_job(context, chat_rows(12), 1, "delete").id).fine_tuned_model
    assert client.models.retrieve(name).id == name
    for path in (name, name.replace(":", "%3A")):
        request = urllib.request.Request(
            f"{context.base_url}/models/{path}",
            headers={"authorization": f"Bearer {context.api_key}"},
        )
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["id"] == name
    deleted = client.models.delete(name)
    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    refused(
        lambda: client.models.retrieve(name), openai.NotFoundError, code="model_not_found"
    )


def an_eval_is_run_and_read_row_by_row(context):
    client = context.client
    criteria = {
        "type": "string_check",
        "name": "names the cat",
        "input": "{{sample.output_text}}",
        "reference": "{{item.name}}",
        "operation": "ilike",
    }
    made = client.evals.create(
        name="cats",
        data_source_config={
            "type": "custom",
            "item_schema": {"type": "object", "properties": {"name": {"type": "string"}}},
            "include_sample_schema": True,
        },
        testing_criteria=[criteria],
    )
    assert client.evals.retrieve(made.id).name == "cats"
    assert client.evals.update(made.id, name="dogs").name == "dogs"
    names = ["Tom", "Kitty", "Felix"]
    rows = jsonl([{"item": {"name": name}} for name in names])
    file = client.files.create(file=("rows.jsonl", rows), purpose="evals")
    run = client.evals.runs.create(
        made.id,
        data_source={
            "type": "completions",
            "model": context.model,
            "input_messages": {
                "type": "template",
                "template": [{"role": "user", "content": "Tell me about {{item.name}}."}],
            },
            "sampling_params": {"temperature": 0, "max_completion_tokens": 8},
            "source": {"type": "file_id", "id": file.id},
        },
    )
    deadline = time.time() + 60
    while run.status in ("queued", "in_progress") and time.time() < deadline:
        time.sleep(0.1)
        run = client.evals.runs.retrieve(run.id, eval_id=made.id)
    assert run.status == "completed", run.error
    assert run.result_counts.total == 3 and run.per_model_usage[0].model_name == context.model
    items = list(client.evals.runs.output_items.list(run.id, eval_id=made.id, limit=2))
    assert [item.datasource_item["name"] for item in items] == names
    alone = client.evals.runs.output_items.retrieve(items[0].id, eval_id=made.id, run_id=run.id)
    assert alone.sample.output[0].content == items[0].sample.output[0].content
    assert [one.id for one in client.evals.runs.list(made.id)] == [run.id]
    refused(
        lambda: client.evals.runs.cancel(run.id, eval_id=made.id),
        openai.BadRequestError,
        code="invalid_run_state",
    )
    graded = client.fine_tuning.alpha.graders.run(
        grader=criteria, item={"name": "Tom"}, model_sample="this is tom"
    )
    assert graded.reward == 1
    python = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0"}
    refused(
        lambda: client.fine_tuning.alpha.graders.validate(grader=python),
        openai.BadRequestError,
        code="unsupported_grader",
    )
    assert client.evals.delete(made.id).deleted


def responses_are_created_streamed_gone_on_from_and_deleted(context):
    client = context.client
    asked = dict(
        model=context.model, input="Tell me about a cat.", temperature=0, max_output_tokens=16
    )
    whole = client.responses.create(**asked)
    assert whole.id.startswith("resp_") and whole.output_text and whole.usage.output_tokens == 16
    events = list(client.responses.create(**asked, stream=True))
    text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert text == whole.output_text
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    with client.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        # Its helper waits for response.completed, which an answer that was cut does not have.
    schema = {
        "type": "object",
        "properties": {"pet": {"enum": ["cat", "dog"]}},
        "required": ["pet"],
        "additionalProperties": False,
    }
    with client.responses.stream(
        model=context.model,
        input="Which pet?",
        text={"format": {"type": "json_schema", "name": "pet", "strict": True, "schema": schema}},
    ) as stream:
        pet = json.loads(stream.get_final_response().output_text)["pet"]
    assert pet in ("cat", "dog")
    called = client.responses.create(
        model=context.model,
        input="Which pet?",
        tools=[{"type": "function", "name": "buy", "parameters": schema, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    call = called.output[0]
    assert call.type == "function_call" and json.loads(call.arguments)["pet"] in ("cat", "dog")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sold"}
    later = client.responses.create(
        **{**asked, "previous_response_id": called.id, "input": [output]}
    )
    assert later.previous_response_id == called.id
    # What the client got may be sent back as it is.
    again = client.responses.create(
        **{**asked, "input": [{"role": "user", "content": "Which pet?"}, *called.output, output]}
    )
    assert again.output_text == later.output_text
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    assert len(list(client.responses.input_items.list(whole.id))) == 1
    client.responses.delete(whole.id)
    refused(lambda: client.responses.retrieve(whole.id), openai.NotFoundError)


def chat_completions_are_stored_listed_and_deleted(context):
    completions = context.client.chat.completions
    asked = dict(
        model=context.model,
        messages=[{"role": "user", "content": "Tell me about a cat."}],
        max_tokens=4,
        store=True,
        metadata={"of": f"stored by {context.name}"},
    )
    ids = [completions.create(**asked).id for _ in range(2)]
    assert [one.id for one in completions.list(metadata=asked["metadata"], limit=1)] == ids
    assert completions.retrieve(ids[0]).choices[0].message.content
    assert completions.messages.list(ids[0]).data[0].content == "Tell me about a cat."
    completions.update(ids[0], metadata={"of": "nobody"})
    assert [one.id for one in completions.list(metadata=asked["metadata"])] == ids[1:]
    for one in ids:
        assert completions.delete(one).deleted
        refused(lambda: completions.retrieve(one), openai.NotFoundError)


SCENARIOS = {
    "1: a file becomes a job becomes a model that answers": a_file_becomes_a_job_becomes_a_model_that_answers,
    "2: events are walked once, newest first, none lost while new ones arrive": events_are_walked_once_newest_first_none_lost,
    "3: every refusal is the right class with code, param, type and request id": every_refusal_is_the_right_class,
    "4: cancelling a finished job is refused at once, without a retry": cancelling_a_finished_job_is_refused_without_a_retry,
    "5: a job created twice under one Idempotency-Key is one job": a_key_used_twice_is_one_job,
    "10: a job that is paused and resumed ends with the weights of an undisturbed one": a_paused_job_ends_with_the_weights_of_an_undisturbed_one,
    "6: a stream says its usage, and its deltas are the text of the answer": a_stream_says_its_usage_and_its_deltas_are_the_text,
    "6: a stream never cuts a character in two": a_stream_never_cuts_a_character_in_two,
    "6: a client that goes away frees its place": a_client_that_goes_away_frees_its_place,
    "11: the result file has the five columns and a row for every step": the_result_file_has_a_row_for_every_step,
    "12: bad rows fail the job in the known words": bad_rows_fail_the_job_in_the_known_words,
    "13: a tuned model is found with a colon and with %3A, and after its deletion no more": a_tuned_model_is_found_with_colons_and_deleted,
    "15: an eval is created, run over a file by a model, and read row by row": an_eval_is_run_and_read_row_by_row,
    "16: responses are created, streamed, gone on from and deleted": responses_are_created_streamed_gone_on_from_and_deleted,
    "17: chat completions are stored, listed and deleted": chat_completions_are_stored_listed_and_deleted,
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Context(**json.loads(os.environ["CONTEXT"])))
