import { expect, test } from 'vitest'
import type { FileReport } from '../../../../src/engine/train/request.ts'
import { fileFailure } from '../../../../src/service/jobs/file-errors.ts'

const good: FileReport = {
  format: 'chat',
  examples: 10,
  tokens: 100,
  trained_tokens: 50,
  truncated: 0,
  dropped: 0,
  errors: [],
  error_count: 0,
  warnings: [],
}

const job = { training_file: 'file-1', validation_file: null, method: { type: 'dpo' } }

const bad: FileReport = {
  ...good,
  errors: [
    {
      line: 100,
      pointer: '/messages/1',
      check: 'message_missing_key',
      message: "Discriminator 'role' is missing in value",
    },
    { line: 101, pointer: '', check: 'data_type', message: 'The row is not an object.' },
  ],
  error_count: 2,
}

test('fit files are no failure', () => {
  expect(fileFailure({ type: 'inspected', training: good, validation: good }, job)).toBeUndefined()
})

test('a bad training row fails the job in the words clients know, and every row is kept', () => {
  expect(fileFailure({ type: 'inspected', training: bad, validation: bad }, job)).toEqual({
    error: {
      code: 'invalid_training_file',
      param: 'training_file',
      message:
        "The job failed due to an invalid training file. Invalid file format. Example 100, message 2 Discriminator 'role' is missing in value",
    },
    errors: [
      ...bad.errors.map((error) => ({ param: 'training_file', ...error })),
      ...bad.errors.map((error) => ({ param: 'validation_file', ...error })),
    ],
  })
})

test('a bad validation row names the validation file', () => {
  const failure = fileFailure({ type: 'inspected', training: good, validation: bad }, job)
  expect(failure?.error).toMatchObject({
    code: 'invalid_validation_file',
    param: 'validation_file',
    message: expect.stringContaining('The job failed due to an invalid validation file. Invalid'),
  })
})

test('too few examples have a code of their own', () => {
  expect(
    fileFailure({ type: 'inspected', training: { ...good, examples: 7 } }, job)?.error,
  ).toEqual({
    code: 'invalid_n_examples',
    param: 'training_file',
    message: 'Training file has 7 example(s), but must have at least 10 examples',
  })
})

test('a file of neither format is told which formats there are', () => {
  const training: FileReport = {
    ...good,
    format: undefined,
    examples: 0,
    errors: [
      {
        line: 1,
        pointer: '',
        check: 'unexpected_format',
        message:
          'has an unexpected file format, expected either prompt/completion pairs or chat messages.',
      },
    ],
    error_count: 1,
  }
  expect(fileFailure({ type: 'inspected', training }, job)?.error.message).toBe(
    'The job failed due to an invalid training file. unexpected file format, expected either prompt/completion pairs or chat messages.',
  )
})

test('a file that another method takes is told which', () => {
  const training: FileReport = {
    ...good,
    format: undefined,
    errors: [
      {
        line: 1,
        pointer: '',
        check: 'format_of_another_method',
        message:
          "is in the fine-tune-chat format, but the specified fine-tuning job is not using 'supervised' as the training method",
      },
    ],
    error_count: 1,
  }
  expect(fileFailure({ type: 'inspected', training }, job)?.error.message).toBe(
    "The job failed due to an invalid training file. Invalid file format. Input file file-1 is in the fine-tune-chat format, but the specified fine-tuning job is not using 'supervised' as the training method (provided method=dpo).",
  )
})
