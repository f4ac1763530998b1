-- The article's posts: Stack Overflow's questions that have exactly one of its 20 tags, as text and tag.
SELECT
  CONCAT(
    title,
    '\n',
    -- The text of the body's HTML; '&amp;' comes last, because '&amp;lt;' is the text '&lt;'.
    REPLACE(REPLACE(REPLACE(REPLACE(
      REGEXP_REPLACE(body, r'<[^>]*>', ' '), '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&amp;', '&')
  ) AS post,
  kept[OFFSET(0)] AS tags
FROM (
  SELECT
    title,
    body,
    ARRAY(
      SELECT tag
      FROM UNNEST(SPLIT(tags, '|')) AS tag
      WHERE tag IN (
        '.net', 'android', 'angularjs', 'asp.net', 'c', 'c#', 'c++', 'css', 'html', 'ios', 'iphone', 'java',
        'javascript', 'jquery', 'mysql', 'objective-c', 'php', 'python', 'ruby-on-rails', 'sql'
      )
    ) AS kept
  FROM `bigquery-public-data.stackoverflow.posts_questions`
)
WHERE ARRAY_LENGTH(kept) = 1
