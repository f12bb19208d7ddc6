def project do
  [
    app: :hello,
  ]
end
